// What consistency models in terms of noise levels share: f(x, sigma) = skip x + out F(in x,
// ln(sigma) / 4), the end of the trajectory through x, at two levels of one trajectory.
#pragma once

#include "models/layers/losses.h"
#include "models/methods/noise_levels.h"

namespace fluxion {

// f on the path of these options.
Velocity end_of_trajectory(const Velocity& network, const Path& path);

// A row of the table with what the others share: prediction, path, sampling.
Method consistency_method();

// f at level sigma, of x + sigma e.
Tensor end_from(const Velocity& network, const Path& path, const Tensor& x, const Tensor& e,
                const Tensor& sigma, const Tensor& labels);

// Of the grid of levels, and why they can't be (Method::refusal).
MethodOption first_levels_option();
MethodOption last_levels_option();
std::string refuse_levels(const MethodUse& use);

// min(s0 2^floor(step / K'), s1) + 1 levels, K' = floor(K / (log2 floor(s1 / s0) + 1)) steps of the
// whole run's K; a scalar.
Tensor doubling_levels(const LossArguments& arguments, std::int64_t first, std::int64_t last);

}  // namespace fluxion
