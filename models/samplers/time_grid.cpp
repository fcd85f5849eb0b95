#include "models/samplers/time_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/error.h"
#include "engine/number_text.h"

namespace fluxion {
namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();
constexpr double widest_ratio = 1000;

GridPoint point_at(const Path& path, double t) {
  const PathNumbers at = path.at(t);
  return {t, at.alpha, at.sigma};
}

GridPoint point_of_ratio(const Path& path, double ratio) {
  if (ratio == infinite) return point_at(path, path.noise_time());
  return point_at(path, path.time_of(PathNumbers{1, ratio, 0, 0}));
}

double ratio_at(const Path& path, double t) {
  const PathNumbers at = path.at(t);
  // cos(pi / 2) is not quite 0 in floating point.
  return at.alpha < 1e-12 ? infinite : at.sigma / at.alpha;
}

double share_of(std::int64_t i, std::int64_t last) {
  return last > 0 ? static_cast<double>(i) / static_cast<double>(last) : 0;
}

// The level that far on the way from `high` to `low`: evenly in its rho-th root, or, with rho = 0,
// in its logarithm.
double level_at(double share, double low, double high, double rho) {
  if (rho == 0) return std::exp(std::log(high) + share * (std::log(low) - std::log(high)));
  const double from = std::pow(high, 1 / rho), to = std::pow(low, 1 / rho);
  return std::pow(from + share * (to - from), rho);
}

bool shiftable(const Path& path) {
  return path.kind == PathKind::linear || path.kind == PathKind::trig;
}

}  // namespace

std::vector<double> karras_levels(std::int64_t n, double low, double high, double rho) {
  std::vector<double> levels;
  for (std::int64_t i = 0; i < n; ++i)
    levels.push_back(level_at(share_of(i, n - 1), low, high, rho));
  return levels;
}

NoiseRange noise_range(const Path& path, Prediction prediction) {
  NoiseRange range{ratio_at(path, path.clean_time()), ratio_at(path, path.noise_time())};
  if (prediction == Prediction::data || prediction == Prediction::score)
    range.low = std::max(range.low, 1 / widest_ratio);
  if (prediction == Prediction::noise || prediction == Prediction::score)
    range.high = std::min(range.high, widest_ratio);
  // Behind EDM's scales a network is told the level's logarithm.
  if (prediction == Prediction::F) {
    if (range.low == 0) range.low = 1 / widest_ratio;
    if (range.high == infinite) range.high = widest_ratio;
  }
  return range;
}

TimeGrid time_grid(const SamplerOptions& options, const Path& path, bool to_data) {
  const std::int64_t steps = options.steps;
  // The network's range, as far as the path that is walked has one.
  NoiseRange range = noise_range(options.path, options.prediction);
  if (!(path == options.path)) {
    const NoiseRange own = noise_range(path, Prediction::velocity);
    range = {std::max(range.low, own.low), std::min(range.high, own.high)};
  }
  const GridPoint data{.t = 0, .alpha = 1, .sigma = 0};
  TimeGrid grid;
  if (options.grid == GridKind::best) {
    if (options.times.empty()) throw Error("sampler: the best grid was not looked for");
    for (const double t : options.times) grid.push_back(point_at(path, t));
    if (to_data) grid.back() = data;
    return grid;
  }
  const bool karras = options.grid == GridKind::karras;
  if (karras || options.grid == GridKind::log_snr) {
    const double low = std::max(range.low, options.sigma_min);
    double high = std::min(range.high, options.sigma_max);
    if (!(low < high))
      throw Error("sampler: the grid wants sigma_min < sigma_max within [" +
                  number_text(range.low) + ", " + number_text(range.high) + "], got " +
                  number_text(options.sigma_min) + " and " + number_text(options.sigma_max));
    if (options.begin > 0) high = level_at(options.begin, low, high, karras ? options.rho : 0);
    // The last of steps + 1 points is `low`, or, to the data, that of no noise.
    const std::int64_t levels = to_data ? steps : steps + 1;
    if (karras) {
      for (const double ratio : karras_levels(levels, low, high, options.rho))
        grid.push_back(point_of_ratio(path, ratio));
    } else {
      for (std::int64_t i = 0; i < levels; ++i)
        grid.push_back(point_of_ratio(path, level_at(share_of(i, levels - 1), low, high, 0)));
    }
    if (to_data) grid.push_back(data);
    return grid;
  }

  const double from = std::min(path.noise_time(), point_of_ratio(path, range.high).t),
               to = std::max(path.clean_time(), point_of_ratio(path, range.low).t);
  if (options.shift != 1 && !shiftable(path))
    throw Error("sampler: shift wants a path whose times are [0, 1], linear or trig, not " +
                to_string(path.kind));
  for (std::int64_t i = 0; i <= steps; ++i) {
    const double share = options.begin + (1 - options.begin) * share_of(i, steps);
    double t = from + share * (to - from);
    t = options.shift * t / (1 + (options.shift - 1) * t);
    grid.push_back(point_at(path, t));
  }
  if (to_data) grid.back() = data;
  return grid;
}

}  // namespace fluxion
