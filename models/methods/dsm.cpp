// Denoising score matching along a path of a diffusion: sigma s(z, t) = F, regressed on -e with
// weight sigma^2, t uniform.
#include "models/methods/score_levels.h"

namespace fluxion {

Method dsm_method() {
  Method method = score_method();
  method.name = "dsm";
  method.summary = "The score of every noise level; many steps draw a sample";
  method.paper =
      "Vincent 2011, A Connection Between Score Matching and Denoising Autoencoders; Song et al. "
      "2021, Score-Based Generative Modeling through SDEs, arXiv 2011.13456";
  method.loss = [](const LossArguments& arguments) {
    const NoisedBatch batch = noised_batch(arguments);
    const Tensor loss = score_error(batch, scaled_score(arguments, batch)(batch.z));
    return LossValue{loss, loss};
  };
  return method;
}

}  // namespace fluxion
