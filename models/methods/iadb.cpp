// Iterative alpha-(de)blending: noise and data are blended with uniform weights, and the network
// learns their difference. Flow matching, found another way; many small steps blend back.
#include "models/methods/flow_options.h"
#include "models/objectives/flow.h"

namespace fluxion {

Method iadb_method() {
  return {
      .name = "iadb",
      .summary =
          "The difference between noise and data that were blended; many steps draw a sample",
      .paper =
          "Heitz, Belcour and Chambon 2023, Iterative alpha-(de)Blending: a Minimalist "
          "Deterministic Diffusion Model, arXiv 2305.03486",
      .options = {label_dropout_option()},
      .prediction = Prediction::velocity,
      .sampling = {.sampler = "euler", .steps = 128},
      .loss =
          [](const LossArguments& arguments) {
            const FlowDraws draws =
                draw(arguments, {.times = {.density = TimeDensity::uniform},
                                 .equal_share = 1,
                                 .label_dropout = arguments.use.options.real("label-dropout")});
            const FlowMatchingResult result = flow_matching(arguments.velocity, draws);
            return LossValue{result.loss, result.loss};
          },
      .takes_pairs = true,
  };
}

}  // namespace fluxion
