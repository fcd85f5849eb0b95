// Reflow: flow matching on pairs of noise and what a trained model draws from it, whose paths cross
// less than those of independent pairs. Its distillation to k steps learns the velocity at the
// times 1/k, 2/k, .., 1 of those steps alone.
#include "engine/graph/ops.h"
#include "models/methods/flow_options.h"

namespace fluxion {
namespace {

constexpr std::int64_t usual_reflow_steps = 4;

LossValue reflow_loss(const LossArguments& arguments) {
  FlowDraws draws = draw(arguments, draw_options(arguments.use.options));
  if (const std::int64_t k = arguments.use.options.whole("distil-steps"); k > 0) {
    const Tensor u = uniform(fold_in(arguments.key, 1), {arguments.x.size(0)}, arguments.x.dtype());
    const auto steps = static_cast<double>(k);
    draws.t = draws.r = minimum(floor(u * steps) + 1.0, steps) / steps;
  }
  return flow_loss(arguments, draws);
}

// Distillation has times of its own.
std::vector<MethodOption> times_of_reflow() {
  std::vector<MethodOption> options = single_time_options();
  for (MethodOption& option : options)
    if (option.of_option.empty()) option = for_choices("distil-steps", {"0"}, option);
  return options;
}

std::vector<MethodOption> reflow_options() {
  return with_options(
      pair_making_options(),
      {{whole_option("distil-steps", 0, 1000, {.images = std::int64_t{0}},
                     "Learn the velocity at the times of so many of Euler's steps alone; 0: at all "
                     "times"),
        label_dropout_option()},
       times_of_reflow(),
       regression_options()});
}

}  // namespace

Method reflow_method() {
  return {
      .name = "reflow",
      .summary =
          "The velocity between noise and what a trained model draws from it; few steps draw "
          "a sample",
      .paper = "Liu et al. 2022, Flow Straight and Fast, arXiv 2209.03003",
      .options = reflow_options(),
      .prediction = Prediction::velocity,
      .sampling = {.sampler = "euler", .steps = usual_reflow_steps},
      .sampling_for =
          [](const MethodOptions& options) {
            const std::int64_t k = options.whole("distil-steps");
            return DefaultSampling{.sampler = "euler", .steps = k > 0 ? k : usual_reflow_steps};
          },
      .loss = reflow_loss,
      .takes_pairs = true,
      .needs_pairs = true,
  };
}

}  // namespace fluxion
