#include "models/methods/score_levels.h"

#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/methods/noise_levels.h"

namespace fluxion {

std::vector<MethodOption> score_options(std::vector<MethodOption> own) {
  return with_options(
      std::move(own),
      {{real_option("beta-min", 1e-3, 10, {.images = 0.1},
                    "Rate at which noise comes in at time 0"),
        real_option("beta-max", 1, 100, {.images = 20.0}, "Rate at which noise comes in at time 1"),
        label_dropout_option()}});
}

Path score_path(const MethodOptions& options) {
  return Path::vp(options.real("beta-min"), options.real("beta-max"));
}

std::string score_refusal(const MethodUse& use) {
  return use.options.real("beta-min") < use.options.real("beta-max")
             ? ""
             : "beta-min must be below beta-max";
}

NoisedBatch noised_batch(const LossArguments& arguments) {
  const Path path = score_path(arguments.use.options);
  const double first = path.clean_time();
  const Tensor u = uniform(fold_in(arguments.key, 1), {arguments.x.size(0)}, arguments.x.dtype());
  NoisedBatch batch;
  batch.t = first + (1 - first) * u;
  batch.e = drawn_noise(arguments);
  batch.z = noised(path, arguments.x, batch.e, batch.t);
  batch.sigma = per_sample(path.at(batch.t).sigma, batch.z.rank());
  batch.labels = drawn_labels(arguments);
  return batch;
}

Field scaled_score(const LossArguments& arguments, const NoisedBatch& batch) {
  const Velocity score =
      wrapped(Wrapping::score, arguments.velocity, score_path(arguments.use.options));
  return [score, batch](const Tensor& z) {
    return batch.sigma * score(z, {.t = batch.t, .r = batch.t}, batch.labels);
  };
}

Tensor score_error(const NoisedBatch& batch, const Tensor& scaled) {
  return per_element(squared_norm(scaled + batch.e), batch.z);
}

Method score_method() {
  return {.options = score_options(),
          .prediction = Prediction::score,
          .wrapping = Wrapping::score,
          .path = score_path,
          .sampling = {.sampler = "heun", .steps = 50},
          .refusal = score_refusal};
}

}  // namespace fluxion
