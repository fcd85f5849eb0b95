// The points between noise and data at which a sampler stops, in double precision.
#pragma once

#include "models/samplers/sampler_options.h"

namespace fluxion {

struct GridPoint {
  double t = 0, alpha = 1, sigma = 0;
};
using TimeGrid = std::vector<GridPoint>;

// n levels from `high` down to `low`: ((1 - s) high^(1/rho) + s low^(1/rho))^rho at s = i / (n - 1)
// (Karras et al. 2022, equation 5). n = 1: high.
std::vector<double> karras_levels(std::int64_t n, double low, double high, double rho);

// The levels of sigma / alpha between which a network with this prediction can be asked for a
// velocity, infinity where alpha may be 0: a network that predicts noise says nothing about the
// data where there is only noise, one that predicts data nothing about the noise where there is
// none, and one that predicts F is asked at the level's logarithm; there 1,000 and 1 / 1,000 bound
// the range.
struct NoiseRange {
  double low = 0, high = 0;
};
NoiseRange noise_range(const Path& path, Prediction prediction);

// steps + 1 points of `path` from noise to data. `to_data`: the last has no noise at all, whatever
// the network can be asked there; otherwise it is the range's lower end. Times on vp and ve at no
// noise are 0: nothing may be evaluated there. Throws Error where options and path don't fit.
TimeGrid time_grid(const SamplerOptions& options, const Path& path, bool to_data);

}  // namespace fluxion
