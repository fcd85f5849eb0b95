// Flow matching: the velocity from data to noise, by regression.
#include "models/methods/flow_options.h"

namespace fluxion {

Method flow_matching_method() {
  return {
      .name = "flow-matching",
      .summary = "The velocity from data to noise; many steps draw a sample",
      .paper =
          "Lipman et al. 2022, Flow Matching for Generative Modeling, arXiv 2210.02747; "
          "Liu et al. 2022, Flow Straight and Fast, arXiv 2209.03003",
      .options =
          with_options({label_dropout_option()}, {single_time_options(), regression_options()}),
      .prediction = Prediction::velocity,
      .sampling = {.sampler = "euler", .steps = 50},
      .loss =
          [](const LossArguments& arguments) {
            return flow_loss(arguments, draw(arguments, draw_options(arguments.use.options)));
          },
      .takes_pairs = true,
  };
}

}  // namespace fluxion
