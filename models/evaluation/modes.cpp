#include "models/evaluation/modes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "engine/error.h"
#include "engine/number_text.h"

namespace fluxion {

namespace {

void check_points(const SampleView& points, const char* what) {
  check_samples(points, 1, what);
  if (points.dim != 2)
    throw ShapeError(std::string(what) + ": wants points in the plane, got samples of dimension " +
                     std::to_string(points.dim));
}

}  // namespace

ModeCounts count_modes(const SampleView& points, const std::vector<std::array<float, 2>>& centres,
                       double deviation) {
  check_points(points, "modes");
  if (centres.empty()) throw ShapeError("modes: no centres");
  if (!(deviation > 0))
    throw Error("modes: the standard deviation must be above 0, got " + number_text(deviation));
  std::vector<std::int64_t> counts(centres.size());
  std::int64_t within = 0;
  for (std::int64_t i = 0; i < points.count; ++i) {
    const double x = points.values[static_cast<std::size_t>(2 * i)],
                 y = points.values[static_cast<std::size_t>(2 * i + 1)];
    double nearest = std::numeric_limits<double>::infinity();
    std::size_t mode = 0;
    for (std::size_t k = 0; k < centres.size(); ++k) {
      const double distance = std::hypot(x - centres[k][0], y - centres[k][1]);
      if (distance < nearest) nearest = distance, mode = k;
    }
    if (nearest > 3 * deviation) continue;
    ++counts[mode];
    ++within;
  }
  ModeCounts result{.within = static_cast<double>(within) / static_cast<double>(points.count),
                    .shares = {},
                    .worst = 0};
  for (const std::int64_t count : counts) {
    result.shares.push_back(within == 0 ? 0
                                        : static_cast<double>(count) / static_cast<double>(within));
    result.worst = std::max(
        result.worst, std::abs(result.shares.back() - 1.0 / static_cast<double>(centres.size())));
  }
  return result;
}

double share_on_board(const SampleView& points, const Checkerboard& board) {
  check_points(points, "checkerboard");
  std::int64_t inside = 0;
  for (std::int64_t i = 0; i < points.count; ++i) {
    int parity = 0;
    bool on_board = true;
    for (int axis = 0; axis < 2; ++axis) {
      const double cell =
          std::floor((points.values[static_cast<std::size_t>(2 * i + axis)] - board.low) /
                     (board.high - board.low) * board.cells);
      on_board = on_board && cell >= 0 && cell < board.cells;
      if (on_board) parity += static_cast<int>(cell);
    }
    if (on_board && (parity % 2 == 1) == board.odd) ++inside;
  }
  return static_cast<double>(inside) / static_cast<double>(points.count);
}

}  // namespace fluxion
