// EDM: a denoiser D(x, sigma) = skip x + out F(in x, ln(sigma) / 4), with scales that keep inputs
// and targets of F at unit variance; F is regressed with weight 1.
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/methods/noise_levels.h"

namespace fluxion {

Method edm_method() {
  return {
      .name = "edm",
      .summary = "A denoiser for every noise level; eighteen of Heun's steps draw a sample",
      .paper =
          "Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative "
          "Models, arXiv 2206.00364",
      .options = noise_level_options({level_mean_option(-1.2), level_std_option(1.2)}),
      .prediction = Prediction::F,
      .wrapping = Wrapping::edm,
      .path = noise_level_path,
      .sampling = {.sampler = "edm", .steps = 18},
      .loss =
          [](const LossArguments& arguments) {
            const Path path = noise_level_path(arguments.use.options);
            const Tensor e = drawn_noise(arguments), sigma = drawn_levels(arguments, path);
            const Tensor z = noised(path, arguments.x, e, sigma);
            const Tensor F = wrapped(Wrapping::edm, arguments.velocity, path)(
                z, {.t = sigma, .r = sigma}, drawn_labels(arguments));
            const Tensor target = prediction_target(Prediction::F, path, arguments.x, e, sigma);
            const Tensor loss = per_element(squared_norm(F - target), arguments.x);
            return LossValue{loss, loss};
          },
  };
}

}  // namespace fluxion
