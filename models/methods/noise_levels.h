// Options and draws that methods in terms of noise levels share: x + sigma e, sigma between two
// ends.
#pragma once

#include "models/methods/flow_options.h"
#include "models/paths/path.h"

namespace fluxion {

MethodOption sigma_data_option();
MethodOption sigma_min_option();
MethodOption sigma_max_option();
// sigma-data, sigma-min, sigma-max and label-dropout, with a method's own before them.
std::vector<MethodOption> noise_level_options(std::vector<MethodOption> own = {});
// Karras et al. 2022: alpha = 1, sigma = t.
Path noise_level_path(const MethodOptions& options);

// Mean and deviation of the logarithm of the levels that a method draws.
MethodOption level_mean_option(double fallback);
MethodOption level_std_option(double fallback);
// exp(mean + std n), n ~ N(0, 1), within the ends of the path: [batch].
Tensor drawn_levels(const LossArguments& arguments, const Path& path);

// e ~ N(0, I), of the shape of x: what the batch goes with, or else drawn here.
Tensor drawn_noise(const LossArguments& arguments);
// The labels of the batch, some of them dropped; empty without classes.
Tensor drawn_labels(const LossArguments& arguments);

// Level i of n, as Karras et al. space them: (a + i / (n - 1) (b - a))^7 with a and b the seventh
// roots of the ends; i of any shape, n a scalar.
Tensor karras_level(const Path& path, const Tensor& i, const Tensor& n);

}  // namespace fluxion
