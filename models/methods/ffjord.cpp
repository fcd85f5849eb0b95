// FFJORD: a continuous normalising flow, trained by the likelihood of the data itself. There are no
// pairs and no path: any flow that takes the data to standard normal noise will do.
//   dz/dt = v(z, t),  dl/dt = div v,  z = x, l = 0 at t = 0
//   loss = (-log N(z(1); 0, I) - l(1) + a int |v|^2 dt + b int |dv/dz|_F^2 dt) / d
// The weights a and b (Finlay et al. 2020) prefer, among flows of one likelihood, one with straight
// ways and a smooth velocity, which few steps can follow. Without them the loss finds flows whose
// likelihood is an error of the steps.
#include "autograd/divergence.h"
#include "engine/graph/ops.h"
#include "models/likelihood/probability_flow.h"
#include "models/methods/noise_levels.h"

namespace fluxion {
namespace {

constexpr std::int64_t image_steps = 4, point_steps = 8;
constexpr double default_weight = 0.01;  // that of the paper, of both

MethodOption weight_option(std::string name, std::string help) {
  return newer_option(
      real_option(std::move(name), 0, 1e6, {.images = default_weight}, std::move(help)), 0.0);
}

LossValue ffjord_loss(const LossArguments& arguments) {
  const MethodOptions& options = arguments.use.options;
  const bool images = arguments.x.rank() > 2;
  // A density is that of numbers, not of levels.
  const Tensor x = images ? dequantised(arguments.x, fold_in(arguments.key, 0)) : arguments.x;
  const double kinetic = options.real("kinetic-weight"), jacobian = options.real("jacobian-weight");
  FollowOptions how{.steps = options.whole("flow-steps"),
                    .costs = kinetic > 0 || jacobian > 0,
                    .labels = drawn_labels(arguments)};
  if (options.text("divergence") == "hutchinson")
    how.probes = rademacher_probes(fold_in(arguments.key, 1), x, 1);
  const auto flow_of = [](const Velocity& velocity) {
    return Predictor{velocity, Path::linear(), Prediction::velocity};
  };
  FollowedFlow flow;
  if (options.text("flow-gradient") == "adjoint") {
    flow = follow_flow_by_adjoint(
        [bind = arguments.bind, flow_of](const Parameters& own) { return flow_of(bind(own)); },
        arguments.parameters, x, how);
  } else {
    how.recompute = true;
    flow = follow_flow(flow_of(arguments.velocity), x, how);
  }
  const auto dimensions = static_cast<double>(x.elements() / x.size(0));
  Tensor loss = neg(flow.log_p);
  if (kinetic > 0) loss = loss + kinetic * flow.kinetic_energy;
  if (jacobian > 0) loss = loss + jacobian * flow.jacobian_norm;
  return {mean(loss) / dimensions, mean(square(flow.z))};
}

}  // namespace

Method ffjord_method() {
  return {
      .name = "ffjord",
      .summary =
          "Any flow from data to noise, by the likelihood of the data; some steps of RK4 draw a "
          "sample",
      .paper =
          "Grathwohl et al. 2019, FFJORD: Free-form Continuous Dynamics for Scalable Reversible "
          "Generative Models, arXiv 1810.01367; Chen et al. 2018, Neural Ordinary Differential "
          "Equations, arXiv 1806.07366; Finlay et al. 2020, How to Train Your Neural ODE, arXiv "
          "2002.02798",
      .options = {whole_option("flow-steps", 1, 1000,
                               {.images = image_steps, .points = point_steps},
                               "Steps of RK4 that the flow is followed by"),
                  choice_option("divergence", {"exact", "hutchinson"},
                                {.images = "hutchinson", .points = "exact"},
                                "How the velocity's divergence is found: by a derivative for each "
                                "dimension, or along one random direction a step"),
                  choice_option("flow-gradient", {"unrolled", "adjoint"}, {.images = "unrolled"},
                                "unrolled: through the steps, each computed again; adjoint: by "
                                "the adjoint equation, which keeps nothing of them"),
                  weight_option("kinetic-weight",
                                "Weight of the square of the velocity along the path, which "
                                "makes paths straight"),
                  weight_option("jacobian-weight",
                                "Weight of the square of the norm of the velocity's Jacobian, "
                                "which makes it one that few steps can follow"),
                  label_dropout_option()},
      .prediction = Prediction::velocity,
      .sampling = {.sampler = "rk4", .steps = image_steps},
      .sampling_for =
          [](const MethodOptions& options) {
            return DefaultSampling{.sampler = "rk4", .steps = options.whole("flow-steps")};
          },
      .loss = ffjord_loss,
      .any_flow = true,
  };
}

}  // namespace fluxion
