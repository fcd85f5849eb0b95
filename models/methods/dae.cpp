// The denoising auto-encoder r(z) = E[x | z], at every noise level of a diffusion:
//   |r(z) - x|^2,     (alpha r(z) - z) / sigma^2 = the score
#include "models/layers/losses.h"
#include "models/methods/score_levels.h"

namespace fluxion {

Method dae_method() {
  Method method = score_method();
  method.name = "dae";
  method.summary = "The clean sample behind every noise level; many steps draw a sample";
  method.paper =
      "Alain and Bengio 2014, What Regularized Auto-Encoders Learn from the Data-Generating "
      "Distribution, arXiv 1211.4246";
  method.prediction = Prediction::data;
  method.wrapping = Wrapping::none;
  method.loss = [](const LossArguments& arguments) {
    const NoisedBatch batch = noised_batch(arguments);
    const Tensor r = arguments.velocity(batch.z, {.t = batch.t, .r = batch.t}, batch.labels);
    const Tensor loss = per_element(squared_norm(r - arguments.x), arguments.x);
    return LossValue{loss, loss};
  };
  return method;
}

}  // namespace fluxion
