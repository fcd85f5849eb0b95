// Options that methods with times between data and noise share, and their draws.
#pragma once

#include "models/methods/method.h"
#include "models/objectives/draws.h"

namespace fluxion {

MethodOption time_mean_option();
MethodOption time_std_option();
MethodOption equal_share_option();
MethodOption label_dropout_option();
MethodOption adaptive_power_option();
// teacher, pairs, pair-sampler and pair-steps, of methods that need pairs.
std::vector<MethodOption> pair_making_options();
MethodOption adaptive_offset_option();

// Those of the options that the method has; without an equal share, r = t in all rows.
DrawOptions draw_options(const MethodOptions& options);

// The draws of a step from its key.
FlowDraws draw(const LossArguments& arguments, const DrawOptions& options);

// A mean over the batch of a sum over the elements of a sample, as a mean over both.
Tensor per_element(const Tensor& per_sample, const Tensor& x);

}  // namespace fluxion
