#include "models/methods/score_levels.h"

#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/methods/noise_levels.h"

namespace fluxion {

std::vector<MethodOption> score_options(std::vector<MethodOption> own) {
  const auto preserving = [](MethodOption option) {
    return for_choices("path", {"vp", "sub-vp"}, std::move(option));
  };
  const auto exploding = [](MethodOption option, double fallback) {
    return for_choices("path", {"ve"}, with_default(std::move(option), {.images = fallback}));
  };
  return with_options(
      std::move(own),
      {{choice_option("path", {"vp", "sub-vp", "ve"}, {.images = "vp"},
                      "How noise comes in: while the variance stays, below that, or by itself"),
        preserving(real_option("beta-min", 1e-3, 10, {.images = 0.1},
                               "Rate at which noise comes in at time 0")),
        preserving(real_option("beta-max", 1, 100, {.images = 20.0},
                               "Rate at which noise comes in at time 1")),
        exploding(sigma_min_option(), 0.01), exploding(sigma_max_option(), 50),
        label_dropout_option()}});
}

Path score_path(const MethodOptions& options) {
  const PathKind kind = path_kind_from(options.text("path"));
  if (kind == PathKind::ve) return Path::ve(options.real("sigma-min"), options.real("sigma-max"));
  Path path = Path::vp(options.real("beta-min"), options.real("beta-max"));
  path.kind = kind;
  return path;
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
