#include "models/objectives/score.h"

#include "autograd/divergence.h"
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"

namespace fluxion {
namespace {

// s(x) = u(x, t, 0).
Field score_field(const Velocity& network, const Tensor& t, const Tensor& labels) {
  return [=](const Tensor& x) { return network(x, {.t = t, .r = zeros_like(t)}, labels); };
}

}  // namespace

DenoisingScoreMatchingResult denoising_score_matching(const Velocity& network, const Tensor& x,
                                                      const Tensor& e, const Tensor& sigma,
                                                      const Labels& labels) {
  const Tensor level = per_sample(sigma, x.rank());
  DenoisingScoreMatchingResult result;
  result.score = score_field(network, sigma, labels.dropped())(x + level * e);
  result.per_sample = 0.5 * squared_norm(level * result.score + e);
  result.loss = mean(result.per_sample);
  return result;
}

ProbedScoreMatchingResult sliced_score_matching(const Velocity& network, const Tensor& x,
                                                const Tensor& t, const Tensor& probes,
                                                const Labels& labels) {
  const auto [score, vJv] = probe(score_field(network, t, labels.dropped()), x, probes);
  // v' s per probe: the probes fold into the batch.
  const std::int64_t count = probes.size(0), batch = x.size(0);
  const Tensor flat_probes = reshape(probes, {count, batch, -1}),
               flat_score = reshape(score, {1, batch, -1});
  const Tensor along = sum(flat_probes * flat_score, {2});
  ProbedScoreMatchingResult result{
      .loss = {}, .score = score, .vJv = vJv, .per_sample = mean(vJv + 0.5 * square(along), {0})};
  result.loss = mean(result.per_sample);
  return result;
}

ProbedScoreMatchingResult implicit_score_matching_hutchinson(const Velocity& network,
                                                             const Tensor& x, const Tensor& t,
                                                             const Tensor& probes,
                                                             const Labels& labels) {
  const auto [score, vJv] = probe(score_field(network, t, labels.dropped()), x, probes);
  ProbedScoreMatchingResult result{.loss = {},
                                   .score = score,
                                   .vJv = vJv,
                                   .per_sample = mean(vJv, {0}) + 0.5 * squared_norm(score)};
  result.loss = mean(result.per_sample);
  return result;
}

ExactScoreMatchingResult implicit_score_matching_exact(const Velocity& network, const Tensor& x,
                                                       const Tensor& t, const Labels& labels) {
  const auto [score, trace, norm] =
      divergence(score_field(network, t, labels.dropped()), x, x.device().costs().tangents_at_once);
  ExactScoreMatchingResult result{
      .loss = {}, .score = score, .trace = trace, .per_sample = trace + 0.5 * squared_norm(score)};
  result.loss = mean(result.per_sample);
  return result;
}

VelocityDivergence divergence_exact(const Velocity& network, const Tensor& x, const Tensor& t,
                                    const Tensor& labels) {
  const auto [velocity, trace, norm] =
      divergence([&](const Tensor& z) { return network(z, {.t = t, .r = t}, labels); }, x,
                 x.device().costs().tangents_at_once);
  return {velocity, trace};
}

}  // namespace fluxion
