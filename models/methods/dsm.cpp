// Denoising score matching along the variance-preserving path: sigma s(z, t) = F, regressed on -e
// with weight sigma^2, t uniform.
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/methods/noise_levels.h"

namespace fluxion {
namespace {

Path score_path(const MethodOptions& options) {
  return Path::vp(options.real("beta-min"), options.real("beta-max"));
}

}  // namespace

Method dsm_method() {
  return {
      .name = "dsm",
      .summary = "The score of every noise level; many steps draw a sample",
      .paper =
          "Vincent 2011, A Connection Between Score Matching and Denoising Autoencoders; Song "
          "et al. 2021, Score-Based Generative Modeling through SDEs, arXiv 2011.13456",
      .options = {real_option("beta-min", 1e-3, 10, {.images = 0.1},
                              "Rate at which noise comes in at time 0"),
                  real_option("beta-max", 1, 100, {.images = 20.0},
                              "Rate at which noise comes in at time 1"),
                  label_dropout_option()},
      .prediction = Prediction::score,
      .wrapping = Wrapping::score,
      .path = score_path,
      .sampling = {.sampler = "heun", .steps = 50},
      .refusal = [](const MethodUse& use) -> std::string {
        return use.options.real("beta-min") < use.options.real("beta-max")
                   ? ""
                   : "beta-min must be below beta-max";
      },
      .loss =
          [](const LossArguments& arguments) {
            const Path path = score_path(arguments.use.options);
            const double first = path.clean_time();
            const Tensor e = drawn_noise(arguments);
            const Tensor u =
                uniform(fold_in(arguments.key, 1), {arguments.x.size(0)}, arguments.x.dtype());
            const Tensor t = first + (1 - first) * u;
            const Tensor z = noised(path, arguments.x, e, t);
            const Tensor score = wrapped(Wrapping::score, arguments.velocity, path)(
                z, {.t = t, .r = t}, drawn_labels(arguments));
            const Tensor scaled = per_sample(path.at(t).sigma, z.rank()) * score;
            const Tensor loss = per_element(squared_norm(scaled + e), arguments.x);
            return LossValue{loss, loss};
          },
  };
}

}  // namespace fluxion
