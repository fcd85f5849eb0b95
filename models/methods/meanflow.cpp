// MeanFlow: the average velocity over an interval, from its identity with the velocity at its end;
// with guidance in the target where omega and kappa ask for it.
#include "models/methods/flow_options.h"
#include "models/objectives/flow.h"

namespace fluxion {
namespace {

bool is_guided(const MethodOptions& options) {
  return options.real("omega") != 1 || options.real("kappa") != 0;
}

LossValue meanflow_loss(const LossArguments& arguments) {
  const MethodOptions& options = arguments.use.options;
  const bool subset = options.text("tangent") == "subset";
  DrawOptions how = draw_options(options);
  how.fixed_share = subset;
  const FlowDraws draws = draw(arguments, how);
  const MeanFlowOptions meanflow_options{
      .c = options.real("weight-offset"),
      .p = options.real("power"),
      .jvp_rows = subset ? unequal_rows(how, arguments.x.size(0)) : -1,
      .own_direction = options.text("direction") == "network"};
  const MeanFlowResult result = is_guided(options)
                                    ? meanflow_cfg(arguments.velocity, draws,
                                                   {.meanflow = meanflow_options,
                                                    .omega = options.real("omega"),
                                                    .kappa = options.real("kappa")})
                                          .meanflow
                                    : meanflow(arguments.velocity, draws, meanflow_options);
  return {result.loss, per_element(result.error, arguments.x)};
}

}  // namespace

Method meanflow_method() {
  return {
      .name = "meanflow",
      .summary = "The average velocity over an interval; one step draws a sample",
      .paper = "Geng et al. 2025, Mean Flows for One-step Generative Modeling, arXiv 2505.13447",
      .options = with_options(
          {for_classes(
               real_option("omega", -1000, 1000, {.images = 1.0},
                           "Guidance that is trained in; its scale is omega / (1 - kappa)")),
           for_classes(real_option("kappa", 0, 0.999, {.images = 0.0},
                                   "Share of the conditional velocity in the guided target")),
           label_dropout_option(), equal_share_option(),
           choice_option(
               "tangent", {"subset", "all"}, {.images = "subset"},
               "Run the derivative over the rows that need it, the first of a batch (subset), "
               "or over all, of which random ones need it"),
           choice_option(
               "direction", {"data", "network"}, {.images = "data", .points = "network"},
               "Take the derivative along the velocity of the drawn pair (data), or along "
               "the network's own, which is less noisy"),
           adaptive_power_option(), adaptive_offset_option()},
          {time_options()}),
      .prediction = Prediction::average_velocity,
      .sampling = {.sampler = "meanflow", .steps = 1},
      .guidance = [](const MethodOptions& options) -> std::optional<TrainedGuidance> {
        if (!is_guided(options)) return std::nullopt;
        return TrainedGuidance{options.real("omega"), options.real("kappa")};
      },
      .refusal = [](const MethodUse& use) -> std::string {
        if (!is_guided(use.options)) return "";
        if (num_classes(use.network) == 0)
          return "guidance (omega, kappa) needs classes, and this network has none";
        return use.options.real("label-dropout") == 0
                   ? "guidance (omega, kappa) needs rows without label to learn from: a "
                     "label-dropout above 0"
                   : "";
      },
      .loss = meanflow_loss,
      .takes_pairs = true,
  };
}

}  // namespace fluxion
