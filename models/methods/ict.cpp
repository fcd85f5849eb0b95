// Improved consistency training: neighbouring noise levels of one trajectory, with a grid that
// doubles over the run, a robust distance, and no teacher but the network itself.
#include <cmath>
#include <numbers>

#include "engine/graph/ops.h"
#include "models/methods/consistency_pair.h"

namespace fluxion {
namespace {

// Interval i of the n - 1 between levels, drawn with probability in proportion to
// erf((ln s_(i+1) - m) / (d sqrt 2)) - erf((ln s_i - m) / (d sqrt 2)): [batch], by inverting the
// sum of all intervals that there may be.
Tensor drawn_intervals(const LossArguments& arguments, const Path& path, const Tensor& n,
                       std::int64_t most) {
  const MethodOptions& options = arguments.use.options;
  const Tensor& x = arguments.x;
  const Tensor i = minimum(iota({most + 1}, 0, x.dtype(), x.device()), n - 1.0);
  const Tensor scaled = (log(karras_level(path, i, n)) - options.real("level-mean")) /
                        (options.real("level-std") * std::numbers::sqrt2);
  const Tensor reached = erf(scaled);  // rises up to the last level, and stays
  const Tensor low = slice_axis(reached, 0, 0, 1), high = slice_axis(reached, 0, most, most + 1);
  const Tensor u = uniform(fold_in(arguments.key, 1), {x.size(0)}, x.dtype());
  const Tensor wanted = expand_dims(low + u * (high - low), 1);
  const Tensor below = lt(expand_dims(slice_axis(reached, 0, 1, most + 1), 0), wanted);
  return minimum(sum(below.to(x.dtype()), {1}), n - 2.0);
}

LossValue ict_loss(const LossArguments& arguments) {
  const MethodOptions& options = arguments.use.options;
  const Path path = noise_level_path(options);
  const Tensor &x = arguments.x, e = drawn_noise(arguments), labels = drawn_labels(arguments);
  const std::int64_t most = options.whole("last-levels");
  const Tensor n = doubling_levels(arguments, options.whole("first-levels"), most);
  const Tensor i = drawn_intervals(arguments, path, n, most);
  const Tensor low = karras_level(path, i, n), high = karras_level(path, i + 1.0, n);
  const Tensor student = end_from(arguments.velocity, path, x, e, high, labels);
  const Tensor teacher = stop_gradient(end_from(arguments.velocity, path, x, e, low, labels));
  return {mean(distance(options, student, teacher) / (high - low)),
          per_element(squared_norm(student - teacher), x)};
}

}  // namespace

Method ict_method() {
  Method method = consistency_method();
  method.name = "ict";
  method.summary = "The end of the trajectory through a point, from neighbouring noise levels";
  method.paper =
      "Song and Dhariwal 2023, Improved Techniques for Training Consistency Models, arXiv "
      "2310.14189; with --loss cauchy as Dao et al. 2024, Improved Training Technique for Latent "
      "Consistency Models, arXiv 2502.01441";
  method.options = with_options(
      noise_level_options({with_default(first_levels_option(), {.images = std::int64_t{10}}),
                           with_default(last_levels_option(), {.images = std::int64_t{1280}}),
                           level_mean_option(-1.1), level_std_option(2.0)}),
      {regression_options("pseudo-huber")});
  method.refusal = refuse_levels;
  method.loss = ict_loss;
  method.takes_pairs = true;
  method.has_schedule = true;
  return method;
}

}  // namespace fluxion
