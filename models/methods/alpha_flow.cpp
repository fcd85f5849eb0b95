// alpha-Flow: from flow matching over intervals to MeanFlow, along a schedule and without a
// derivative.
//   s = t - a (t - r),  z_s = z - (t - s) v,  target = a v + (1 - a) u(z_s, s, r), held constant
// with v = e - x and a falling from 1 to 0 over the run. The published code turns to MeanFlow's
// derivative below a = 0.005; here a stays there, which is MeanFlow by finite differences.
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/methods/flow_options.h"

namespace fluxion {
namespace {

constexpr double least_alpha = 0.005, temperature = 25, largest_target = 4;

// 1 - sigmoid(temperature (p - 1/2)), with p the part done of the steps between two marks.
Tensor alpha_at(const LossArguments& arguments, DType dtype) {
  const auto total = static_cast<double>(arguments.use.total_steps);
  const double begin = arguments.use.options.real("alpha-begin") * total,
               end = arguments.use.options.real("alpha-end") * total;
  const Tensor part = (arguments.step.to(dtype) - begin) / std::max(end - begin, 1.0);
  return maximum(sigmoid(temperature * (0.5 - part)), least_alpha);
}

LossValue alpha_flow_loss(const LossArguments& arguments) {
  const FlowDraws draws = draw(arguments, draw_options(arguments.use.options));
  const Tensor r = where(draws.equal_mask, draws.t, draws.r), labels = draws.labels.dropped();
  const Tensor z = interpolate(draws.x, draws.e, draws.t), v = draws.e - draws.x;
  const Tensor alpha = alpha_at(arguments, z.dtype());
  const Tensor s = draws.t - alpha * (draws.t - r);
  const Tensor z_s = z - per_sample(draws.t - s, z.rank()) * v;
  const Tensor later = arguments.velocity(z_s, {.t = s, .r = r}, labels);
  const Tensor mixed = alpha * v + (1.0 - alpha) * later;
  const Tensor target = stop_gradient(minimum(maximum(mixed, -largest_target), largest_target));
  const Tensor u = arguments.velocity(z, {.t = draws.t, .r = r}, labels);
  const Tensor error =
      squared_norm(u - target) / static_cast<double>(draws.x.elements() / draws.x.size(0));
  const Tensor weight = alpha / stop_gradient(error + arguments.use.options.real("weight-offset"));
  return {mean(weight * error), mean(error)};
}

}  // namespace

Method alpha_flow_method() {
  return {
      .name = "alpha-flow",
      .summary =
          "From flow matching to MeanFlow over the run, without a derivative; one step "
          "draws a sample",
      .paper =
          "Zhang et al. 2025, AlphaFlow: Understanding and Improving MeanFlow Models, arXiv "
          "2510.20771",
      .options = {label_dropout_option(), with_default(equal_share_option(), {.images = 0.5}),
                  real_option("alpha-begin", 0, 1, {.images = 0.0},
                              "Where alpha begins to fall from 1, as a share of the run"),
                  real_option("alpha-end", 0, 1, {.images = 0.75},
                              "Where alpha has fallen to 0, as a share of the run"),
                  adaptive_offset_option(), time_mean_option(), time_std_option()},
      .prediction = Prediction::average_velocity,
      .sampling = {.sampler = "meanflow", .steps = 1},
      .refusal = [](const MethodUse& use) -> std::string {
        return use.options.real("alpha-begin") < use.options.real("alpha-end")
                   ? ""
                   : "alpha-begin must be below alpha-end";
      },
      .loss = alpha_flow_loss,
      .takes_pairs = true,
      .has_schedule = true,
  };
}

}  // namespace fluxion
