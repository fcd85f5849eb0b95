#include "models/methods/noise_levels.h"

#include <cmath>

#include "engine/graph/ops.h"

namespace fluxion {

MethodOption sigma_data_option() {
  return real_option("sigma-data", 1e-3, 1000, {.images = 0.5, .points = 2.0},
                     "Standard deviation of the data, which scales inputs and outputs");
}

MethodOption sigma_min_option() {
  return real_option("sigma-min", 1e-5, 1, {.images = 0.002}, "The least noise level");
}

MethodOption sigma_max_option() {
  return real_option("sigma-max", 1.5, 1e4, {.images = 80.0}, "The highest noise level");
}

std::vector<MethodOption> noise_level_options(std::vector<MethodOption> own) {
  return with_options(std::move(own), {{sigma_data_option(), sigma_min_option(), sigma_max_option(),
                                        label_dropout_option()}});
}

Path noise_level_path(const MethodOptions& options) {
  Path path = Path::edm(options.real("sigma-min"), options.real("sigma-max"));
  path.sigma_data = options.real("sigma-data");
  return path;
}

MethodOption level_mean_option(double fallback) {
  return real_option("level-mean", -20, 20, {.images = fallback},
                     "Mean of the logarithm of the noise levels");
}

MethodOption level_std_option(double fallback) {
  return real_option("level-std", 1e-3, 20, {.images = fallback},
                     "Standard deviation of the logarithm of the noise levels");
}

Tensor drawn_levels(const LossArguments& arguments, const Path& path) {
  const MethodOptions& options = arguments.use.options;
  const Tensor n = normal(fold_in(arguments.key, 1), {arguments.x.size(0)}, arguments.x.dtype());
  const Tensor level = exp(options.real("level-mean") + options.real("level-std") * n);
  return minimum(maximum(level, path.sigma_min), path.sigma_max);
}

Tensor drawn_noise(const LossArguments& arguments) {
  if (arguments.noise) return arguments.noise;
  return normal(fold_in(arguments.key, 0), arguments.x.shape(), arguments.x.dtype());
}

Tensor drawn_labels(const LossArguments& arguments) {
  const std::int64_t classes = num_classes(arguments.use.network);
  if (classes == 0) return {};
  const Tensor mask = lt(uniform(fold_in(arguments.key, 2), {arguments.x.size(0)}, DType::f32),
                         arguments.use.options.real("label-dropout"));
  return Labels{arguments.labels, mask, classes}.dropped();
}

Tensor karras_level(const Path& path, const Tensor& i, const Tensor& n) {
  constexpr double rho = 7;
  const double low = std::pow(path.sigma_min, 1 / rho), high = std::pow(path.sigma_max, 1 / rho);
  return pow(low + i / (n - 1.0) * (high - low), rho);
}

}  // namespace fluxion
