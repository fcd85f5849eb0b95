// Consistency training: neighbouring noise levels of one trajectory, the lower one as a slow
// average of the network sees it; the grid grows over the run, and the average gets slower.
#include <cmath>

#include "engine/graph/ops.h"
#include "models/methods/consistency_pair.h"

namespace fluxion {
namespace {

// N = ceil(sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1 levels at step k of K; a scalar.
Tensor levels_at(const MethodUse& use, const Tensor& step) {
  const auto s0 = static_cast<double>(use.options.whole("first-levels")),
             s1 = static_cast<double>(use.options.whole("last-levels"));
  const Tensor part = minimum(
      step.to(DType::f32) / static_cast<double>(std::max<std::int64_t>(use.total_steps, 1)), 1.0);
  return ceil(sqrt(part * ((s1 + 1) * (s1 + 1) - s0 * s0) + s0 * s0) - 1.0) + 1.0;
}

LossValue ct_loss(const LossArguments& arguments) {
  const Path path = noise_level_path(arguments.use.options);
  const Tensor &x = arguments.x, e = drawn_noise(arguments), labels = drawn_labels(arguments);
  const Tensor n = levels_at(arguments.use, arguments.step).to(x.dtype());
  const Tensor u = uniform(fold_in(arguments.key, 1), {x.size(0)}, x.dtype());
  const Tensor i = minimum(floor(u * (n - 1.0)), n - 2.0);
  const Tensor low = karras_level(path, i, n), high = karras_level(path, i + 1.0, n);
  const Velocity slow = arguments.bind(arguments.state.at("teacher"));
  const Tensor student = end_from(arguments.velocity, path, x, e, high, labels);
  const Tensor teacher = stop_gradient(end_from(slow, path, x, e, low, labels));
  const Tensor loss = per_element(squared_norm(student - teacher), x);
  return {loss, loss};
}

// mu = exp(s0 ln(mu0) / N).
MethodState ct_teacher(const UpdateArguments& update) {
  const auto s0 = static_cast<double>(update.use.options.whole("first-levels"));
  const Tensor n = levels_at(update.use, update.step);
  const Tensor share = -expm1(s0 * std::log(update.use.options.real("teacher-decay")) / n);
  return {{"teacher", update.average(update.state.at("teacher"), share)}};
}

}  // namespace

// The paper's grid of 150 levels with a decay of 0.9 is for some 10^6 updates: its teacher needs
// about 4.75 N^2 of them to learn N levels, and a grid that outruns it is learned as a constant.
Method ct_method() {
  Method method = consistency_method();
  method.name = "ct";
  method.summary =
      "The end of the trajectory through a point, from neighbouring noise levels and a slow "
      "average";
  method.paper = "Song et al. 2023, Consistency Models, arXiv 2303.01469";
  method.options =
      noise_level_options({with_default(first_levels_option(), {.images = std::int64_t{2}}),
                           with_default(last_levels_option(), {.images = std::int64_t{18}}),
                           real_option("teacher-decay", 0, 0.9999, {.images = 0.5},
                                       "Decay of the average at the start")});
  method.refusal = refuse_levels;
  method.loss = ct_loss;
  method.takes_pairs = true;
  method.has_schedule = true;
  method.copies = {"teacher"};
  method.after_update = ct_teacher;
  return method;
}

}  // namespace fluxion
