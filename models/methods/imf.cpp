// Improved MeanFlow: the velocity as a compound prediction u + (t - r) du/dt, along a velocity that
// a second network learns beside it and that samples do without. Guidance of scale w, where asked
// for, is in the target: e - x + (1 - 1/w) (v(z; label) - v(z; null)), whose mean is v where
// v = w E[e - x | label] + (1 - w) v(null).
#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/methods/flow_options.h"
#include "models/objectives/flow.h"

namespace fluxion {
namespace {

// The second network, of the same shape: its trained parameters.
std::map<std::string, Shape> velocity_shapes(const MethodUse& use) {
  std::map<std::string, Shape> shapes = parameter_shapes(use.network);
  for (const std::string& name : frozen_parameters(use.network)) shapes.erase(name);
  return shapes;
}

// mean of l / (l + c)^p, the weight held constant.
Tensor adaptive(const Tensor& squares, const MethodOptions& options) {
  return mean(adaptive_weight(squares, options.real("weight-offset"), options.real("power")) *
              squares);
}

LossValue imf_loss(const LossArguments& arguments) {
  const MethodOptions& options = arguments.use.options;
  DrawOptions how = draw_options(options);
  how.fixed_share = true;
  const FlowDraws draws = draw(arguments, how);
  const std::int64_t batch = draws.x.size(0), k = unequal_rows(how, batch);
  const Tensor z = interpolate(draws.x, draws.e, draws.t), labels = draws.labels.dropped(),
               drawn = draws.e - draws.x;
  const Velocity second = arguments.bind(arguments.learned);
  const Times now{.t = draws.t, .r = draws.t};
  const Tensor v = second(z, now, labels);
  Tensor target = drawn;
  if (const double scale = options.real("guidance-scale"); scale != 1 && labels) {
    const Tensor difference = stop_gradient(v - second(z, now, draws.labels.null()));
    // 0 where the label was dropped.
    target = drawn + (1 - 1 / scale) * difference;
  }

  const auto part = [&](const Tensor& tensor, std::int64_t begin, std::int64_t end) {
    return tensor ? slice_axis(tensor, 0, begin, end) : tensor;
  };
  std::vector<Tensor> compound;
  if (k > 0) {
    const Tensor t = part(draws.t, 0, k), r = part(draws.r, 0, k);
    const auto u = [&](const Tensor& z, const Tensor& t) {
      return arguments.velocity(z, {.t = t, .r = r}, part(labels, 0, k));
    };
    const auto [value, dudt] = jvp(u, std::tuple(part(z, 0, k), t),
                                   std::tuple(stop_gradient(part(v, 0, k)), ones_like(t)));
    compound.push_back(value + per_sample(t - r, z.rank()) * stop_gradient(dudt));
  }
  if (k < batch) {
    const Tensor t = part(draws.t, k, batch);
    compound.push_back(
        arguments.velocity(part(z, k, batch), {.t = t, .r = t}, part(labels, k, batch)));
  }
  const Tensor V = compound.size() == 1 ? compound[0] : concat(compound, 0);
  const Tensor error = squared_norm(V - target);
  return {adaptive(error, options) + adaptive(squared_norm(v - target), options),
          per_element(error, draws.x)};
}

}  // namespace

Method imf_method() {
  return {
      .name = "imf",
      .summary =
          "The average velocity, by regression of u + (t - r) du/dt on the velocity; one "
          "step draws a sample",
      .paper = "Geng et al. 2025, Improved Mean Flows, arXiv 2512.02012",
      .options = with_options(
          {for_classes(real_option("guidance-scale", 1, 1000, {.images = 1.0},
                                   "Scale of guidance that is trained in; 1: none")),
           label_dropout_option(), with_default(equal_share_option(), {.images = 0.5}),
           adaptive_power_option(), with_default(adaptive_offset_option(), {.images = 1e-2})},
          {time_options()}),
      .prediction = Prediction::average_velocity,
      .sampling = {.sampler = "meanflow", .steps = 1},
      .guidance = [](const MethodOptions& options) -> std::optional<TrainedGuidance> {
        const double scale = options.real("guidance-scale");
        if (scale == 1) return std::nullopt;
        return TrainedGuidance{.omega = scale, .kappa = 0};
      },
      .refusal = [](const MethodUse& use) -> std::string {
        if (use.options.real("guidance-scale") == 1) return "";
        if (num_classes(use.network) == 0)
          return "guidance-scale needs classes, and this network has none";
        return use.options.real("label-dropout") == 0 ? "guidance-scale needs rows without label "
                                                        "to learn from: a label-dropout above 0"
                                                      : "";
      },
      .loss = imf_loss,
      .takes_pairs = true,
      .learned_shapes = velocity_shapes,
      .learned =
          [](const MethodUse& use, const Tensor& key) {
            return split_frozen(initialise(use.network, key), frozen_parameters(use.network))
                .trained;
          },
  };
}

}  // namespace fluxion
