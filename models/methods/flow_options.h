// Options that methods with times between data and noise share, and their draws.
#pragma once

#include "models/methods/method.h"
#include "models/objectives/draws.h"

namespace fluxion {

// times, and what each of its choices takes.
std::vector<MethodOption> time_options();
// The same, and whether a batch has stratified ones: of methods with one time a row.
std::vector<MethodOption> single_time_options();
// loss, and what each of its choices takes.
std::vector<MethodOption> regression_options(const std::string& usual = "squared");
MethodOption huber_option();
MethodOption time_slope_option();
MethodOption equal_share_option();
MethodOption label_dropout_option();
MethodOption adaptive_power_option();
// teacher, pairs, pair-sampler and pair-steps, of methods that need pairs.
std::vector<MethodOption> pair_making_options();
MethodOption adaptive_offset_option();

// Its own options, and then those of other lists.
std::vector<MethodOption> with_options(std::vector<MethodOption> own,
                                       const std::vector<std::vector<MethodOption>>& others);

// Those of the options that the method has; without an equal share, r = t in all rows.
DrawOptions draw_options(const MethodOptions& options);

// The draws of a step from its key.
FlowDraws draw(const LossArguments& arguments, const DrawOptions& options);

// The distance of regression_options between prediction and target, [batch]: with d their
// difference of a sample and n its elements
//   squared         |d|^2
//   pseudo-huber    sqrt(|d|^2 + c^2) - c, c = huber sqrt(n)               Song and Dhariwal 2023
//   element-huber   the sum over elements of sqrt(d_i^2 + huber^2) - huber     Wang et al. 2024
//   cauchy          log(1 + |d|^2 / (2 c^2)), c = cauchy sqrt(n)           Dao et al. 2024
//   adaptive        |d|^2 (|d|^2 + c)^-p, the second factor held constant     Geng et al. 2025
Tensor distance(const MethodOptions& options, const Tensor& prediction, const Tensor& target);

// Flow matching of these draws: the mean distance of u(z, t, t) from e - x, over n where the
// distance grows with the number of elements (all but the last two).
LossValue flow_loss(const LossArguments& arguments, const FlowDraws& draws);

// A mean over the batch of a sum over the elements of a sample, as a mean over both.
Tensor per_element(const Tensor& per_sample, const Tensor& x);

}  // namespace fluxion
