// alpha-Flow: from flow matching over intervals to MeanFlow, along a schedule and without a
// derivative.
//   s = t - a (t - r),  z_s = z - (t - s) v,  target = a v + (1 - a) u(z_s, s, r), held constant
// with v = e - x and a falling from 1 to 0 over the run; the weight of a squared error E is
// a / (E + c). Below a = 0.005 it stays there, and the weight is a / (E + c a^2): u - target is a
// times MeanFlow's by finite differences, and so its gradients are MeanFlow's. Or, as in the
// published code, MeanFlow's own target takes over. Targets of images are clipped, as there.
#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/methods/flow_options.h"

namespace fluxion {
namespace {

constexpr double least_alpha = 0.005, temperature = 25, largest_target = 4;

// 1 - sigmoid(temperature (p - 1/2)), with p the part done of the steps between two marks.
// It falls below least_alpha.
Tensor alpha_at(const LossArguments& arguments, DType dtype) {
  const auto total = static_cast<double>(arguments.use.total_steps);
  const double begin = arguments.use.options.real("alpha-begin") * total,
               end = arguments.use.options.real("alpha-end") * total;
  const Tensor part = (arguments.step.to(dtype) - begin) / std::max(end - begin, 1.0);
  return sigmoid(temperature * (0.5 - part));
}

LossValue alpha_flow_loss(const LossArguments& arguments) {
  const FlowDraws draws = draw(arguments, draw_options(arguments.use.options));
  const Tensor r = where(draws.equal_mask, draws.t, draws.r), labels = draws.labels.dropped();
  const Tensor z = interpolate(draws.x, draws.e, draws.t), v = draws.e - draws.x;
  const Tensor falling = alpha_at(arguments, z.dtype()), alpha = maximum(falling, least_alpha);
  const Tensor s = draws.t - alpha * (draws.t - r);
  const Tensor z_s = z - per_sample(draws.t - s, z.rank()) * v;
  const Tensor later = arguments.velocity(z_s, {.t = s, .r = r}, labels);
  const Tensor mixed = alpha * v + (1.0 - alpha) * later;
  const bool images = z.rank() > 2;
  Tensor target = images ? minimum(maximum(mixed, -largest_target), largest_target) : mixed, u;
  // The residual is about alpha times MeanFlow's.
  const Tensor small = lt(falling, least_alpha);
  Tensor scale = alpha;
  const auto average = [&](const Tensor& at, const Tensor& t) {
    return arguments.velocity(at, {.t = t, .r = r}, labels);
  };
  if (arguments.use.options.text("small-alpha") == "derivative") {
    Tensor dudt;
    std::tie(u, dudt) = jvp(average, std::tuple(z, draws.t), std::tuple(v, ones_like(draws.t)));
    target = where(small, v - per_sample(draws.t - r, z.rank()) * dudt, target);
    scale = where(small, 1.0, scale);
  } else {
    u = average(z, draws.t);
  }
  target = stop_gradient(target);
  const Tensor error =
      squared_norm(u - target) / static_cast<double>(draws.x.elements() / draws.x.size(0));
  const double offset = arguments.use.options.real("weight-offset");
  const Tensor squares = square(scale),
               weight = scale / (stop_gradient(error) + offset * where(small, squares, 1.0));
  return {mean(weight * error), mean(error / squares)};
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
      .options = with_options(
          {label_dropout_option(), with_default(equal_share_option(), {.images = 0.5}),
           real_option("alpha-begin", 0, 1, {.images = 0.0},
                       "Where alpha begins to fall from 1, as a share of the run"),
           real_option("alpha-end", 0, 1, {.images = 0.75},
                       "Where alpha has fallen to 0, as a share of the run"),
           choice_option("small-alpha", {"differences", "derivative"}, {.images = "differences"},
                         "Below alpha = 0.005: keep it there, which is MeanFlow by finite "
                         "differences, or take MeanFlow's derivative, which then costs time "
                         "in every step"),
           adaptive_offset_option()},
          {time_options()}),
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
