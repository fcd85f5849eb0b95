#include "models/evaluation/planar_divergence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/number_text.h"

namespace fluxion {
namespace {

constexpr int most_cells = 4096;  // along an axis

// One axis of the grid, from the least to the largest of the reference's numbers.
struct GridAxis {
  double low = 0, high = 0;
  int cells = 1;

  GridAxis(const SampleView& points, std::size_t axis, int number) : cells(number) {
    low = high = points.values[axis];
    for (std::size_t at = axis; at < points.values.size(); at += 2) {
      low = std::min<double>(low, points.values[at]);
      high = std::max<double>(high, points.values[at]);
    }
  }
  // -1: beside it.
  int cell(double value) const {
    if (value < low || value > high) return -1;
    const double place = (value - low) / (high - low) * cells;
    return high > low ? std::min(static_cast<int>(place), cells - 1) : 0;
  }
};

}  // namespace

double planar_divergence(const SampleView& reference, const SampleView& samples,
                         const GridCells& cells) {
  check_samples(reference, samples, 1, "kl");
  if (reference.dim != 2)
    throw ShapeError("kl: counts points of the plane, got samples of " +
                     std::to_string(reference.dim) + " numbers");
  if (cells.per_axis < 1 || cells.per_axis > most_cells || !(cells.smoothing > 0) ||
      !std::isfinite(cells.smoothing))
    throw Error("kl: wants 1 to " + std::to_string(most_cells) +
                " cells along an axis and a smoothing above 0, got " +
                std::to_string(cells.per_axis) + " and " + number_text(cells.smoothing));
  const std::array<GridAxis, 2> axes{GridAxis(reference, 0, cells.per_axis),
                                     GridAxis(reference, 1, cells.per_axis)};
  const auto side = static_cast<std::size_t>(cells.per_axis), outside = side * side;
  const auto counts = [&](const SampleView& points) {
    std::vector<double> result(outside + 1, 0);
    for (std::size_t i = 0; i + 1 < points.values.size(); i += 2) {
      const int x = axes[0].cell(points.values[i]), y = axes[1].cell(points.values[i + 1]);
      ++result[x < 0 || y < 0 ? outside
                              : static_cast<std::size_t>(y) * side + static_cast<std::size_t>(x)];
    }
    return result;
  };
  const std::vector<double> of_reference = counts(reference), of_samples = counts(samples);
  const auto total = static_cast<double>(reference.count),
             smoothed = static_cast<double>(samples.count) +
                        cells.smoothing * static_cast<double>(outside + 1);
  double divergence = 0;
  for (std::size_t i = 0; i <= outside; ++i) {
    if (of_reference[i] == 0) continue;
    const double p = of_reference[i] / total, q = (of_samples[i] + cells.smoothing) / smoothed;
    divergence += p * std::log(p / q);
  }
  return divergence;
}

}  // namespace fluxion
