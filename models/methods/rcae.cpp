// The regularised auto-encoder as an estimate of the score, at every noise level of a diffusion:
// r(z) = z + c s(z) with c = contraction sigma^2 is trained to return z and to contract,
//   |r(z) - z|^2 + c |dr/dz|_F^2,     over 2 c^2 and times sigma^2 that is, but for a constant,
//   sigma^2 (|s|^2 / 2 + tr J + c |J|_F^2 / 2),     J = ds/dz,
// implicit score matching with a smooth score preferred: of a Gaussian of variance q it finds the
// score for q + c. One product J v with v of entries +-1 gives the trace and the norm.
#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/layers/losses.h"
#include "models/methods/score_levels.h"

namespace fluxion {
namespace {

LossValue rcae_loss(const LossArguments& arguments) {
  const NoisedBatch batch = noised_batch(arguments);
  const Tensor &z = batch.z, &sigma = batch.sigma;
  const Tensor v = reshape(rademacher_probes(fold_in(arguments.key, 3), z, 1), z.shape());
  const auto [F, Fv] = jvp(scaled_score(arguments, batch), z, v);  // F = sigma s
  const Tensor trace = sum(reshape(sigma * v * Fv, {z.size(0), -1}), {1});
  const double c = arguments.use.options.real("contraction");
  const Tensor loss = 0.5 * squared_norm(F) + trace + 0.5 * c * squared_norm(sigma * Fv);
  return {per_element(loss, z), score_error(batch, F)};
}

}  // namespace

Method rcae_method() {
  Method method = score_method();
  method.name = "rcae";
  method.summary =
      "The score of every noise level, by an auto-encoder that is made to contract; many steps "
      "draw a sample";
  method.paper =
      "Alain and Bengio 2014, What Regularized Auto-Encoders Learn from the Data-Generating "
      "Distribution, arXiv 1211.4246";
  method.options = score_options(
      {real_option("contraction", 1e-6, 10, {.images = 0.05},
                   "Weight of the contraction, in squares of the noise level; the score found is "
                   "that of data with so much more noise")});
  method.loss = rcae_loss;
  return method;
}

}  // namespace fluxion
