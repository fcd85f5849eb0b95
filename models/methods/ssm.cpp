// Sliced score matching along a path of a diffusion: the score from its own derivative, with
// no look at the noise. With s = s(z, t), its Jacobian J and probes v of entries +-1, the mean of
//   sigma^2 (v' J v + |s|^2 / 2)       or, without reduced variance, (v' s)^2 / 2 in its last part
// whose gradient runs in reverse over a derivative in forward mode.
#include "engine/graph/ops.h"
#include "models/layers/losses.h"
#include "models/methods/score_levels.h"

namespace fluxion {
namespace {

LossValue ssm_loss(const LossArguments& arguments) {
  const MethodOptions& options = arguments.use.options;
  const NoisedBatch batch = noised_batch(arguments);
  const std::int64_t rows = batch.z.size(0), count = options.whole("probes");
  const Tensor probes = rademacher_probes(fold_in(arguments.key, 3), batch.z, count);
  const ProbedField field = probe(scaled_score(arguments, batch), batch.z, probes);
  Tensor half_square = 0.5 * squared_norm(field.value);
  if (options.text("norm") == "projected") {
    const Tensor along =
        sum(reshape(probes, {count, rows, -1}) * reshape(field.value, {1, rows, -1}), {2});
    half_square = mean(0.5 * square(along), {0});
  }
  const Tensor trace = reshape(batch.sigma, {rows}) * mean(field.vJv, {0});
  return {per_element(trace + half_square, batch.z), score_error(batch, field.value)};
}

}  // namespace

Method ssm_method() {
  Method method = score_method();
  method.name = "ssm";
  method.summary =
      "The score of every noise level, by its own derivative along random directions; many steps "
      "draw a sample";
  method.paper = "Song et al. 2019, Sliced Score Matching, arXiv 1905.07088";
  method.options = score_options(
      {whole_option("probes", 1, 256, {.images = std::int64_t{1}},
                    "Random directions that the derivative is taken along, for each sample"),
       choice_option("norm", {"whole", "projected"}, {.images = "whole"},
                     "Square the score itself, for less variance, or its part along each "
                     "direction")});
  method.loss = ssm_loss;
  return method;
}

}  // namespace fluxion
