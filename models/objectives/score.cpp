#include "models/objectives/score.h"

#include <functional>

#include "autograd/transforms.h"
#include "engine/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"

namespace fluxion {
namespace {

using Field = std::function<Tensor(const Tensor& x)>;

// Sum of a b over all axes but the first.
Tensor inner(const Tensor& a, const Tensor& b) {
  Dims axes;
  for (std::int64_t axis = 1; axis < a.rank(); ++axis) axes.push_back(axis);
  return axes.empty() ? a * b : sum(a * b, axes);
}

// The field at x, and v' J v for each probe, [probes, batch].
struct Probed {
  Tensor value, vJv;
};
Probed probe(const Field& field, const Tensor& x, const Tensor& probes) {
  if (probes.rank() != x.rank() + 1)
    throw ShapeError("score matching: wants probes [probes, ..] of x " + to_string(x.type()) + ", got " + to_string(probes.type()));
  Probed result;
  std::vector<Tensor> rows;
  for (std::int64_t m = 0; m < probes.size(0); ++m) {
    const Tensor v = reshape(slice_axis(probes, 0, m, m + 1), x.shape());
    const auto [value, Jv] = jvp(field, std::tuple(x), std::tuple(v));
    result.value = value;
    rows.push_back(expand_dims(inner(v, Jv), 0));
  }
  result.vJv = concat(rows, 0);
  return result;
}

// The field at x and the trace of its Jacobian per sample, [batch]: one unit tangent at a time.
std::pair<Tensor, Tensor> traced(const Field& field, const Tensor& x) {
  const std::int64_t batch = x.size(0), elements = x.elements() / batch;
  const Tensor position = iota({1, elements}, 1, DType::i32, x.device());
  Tensor value, trace;
  for (std::int64_t i = 0; i < elements; ++i) {
    const Tensor unit = reshape(broadcast_to(eq(position, static_cast<double>(i)).to(x.dtype()), {batch, elements}), x.shape());
    const auto [here, column] = jvp(field, std::tuple(x), std::tuple(unit));
    const Tensor diagonal = reshape(slice_axis(reshape(column, {batch, elements}), 1, i, i + 1), {batch});
    value = here;
    trace = trace ? trace + diagonal : diagonal;
  }
  return {value, trace};
}

// s(x) = u(x, t, 0).
Field score_field(const Velocity& network, const Tensor& t, const Tensor& labels) {
  return [=](const Tensor& x) { return network(x, {.t = t, .r = zeros_like(t)}, labels); };
}

}  // namespace

DenoisingScoreMatchingResult denoising_score_matching(const Velocity& network, const Tensor& x, const Tensor& e, const Tensor& sigma,
                                                      const Labels& labels) {
  const Tensor level = per_sample(sigma, x.rank());
  DenoisingScoreMatchingResult result;
  result.score = score_field(network, sigma, labels.dropped())(x + level * e);
  result.per_sample = 0.5 * squared_norm(level * result.score + e);
  result.loss = mean(result.per_sample);
  return result;
}

ProbedScoreMatchingResult sliced_score_matching(const Velocity& network, const Tensor& x, const Tensor& t, const Tensor& probes,
                                                const Labels& labels) {
  const auto [score, vJv] = probe(score_field(network, t, labels.dropped()), x, probes);
  // v' s per probe: the probes fold into the batch.
  const std::int64_t count = probes.size(0), batch = x.size(0);
  const Tensor flat_probes = reshape(probes, {count, batch, -1}), flat_score = reshape(score, {1, batch, -1});
  const Tensor along = sum(flat_probes * flat_score, {2});
  ProbedScoreMatchingResult result{.loss = {}, .score = score, .vJv = vJv, .per_sample = mean(vJv + 0.5 * square(along), {0})};
  result.loss = mean(result.per_sample);
  return result;
}

ProbedScoreMatchingResult implicit_score_matching_hutchinson(const Velocity& network, const Tensor& x, const Tensor& t, const Tensor& probes,
                                                             const Labels& labels) {
  const auto [score, vJv] = probe(score_field(network, t, labels.dropped()), x, probes);
  ProbedScoreMatchingResult result{.loss = {}, .score = score, .vJv = vJv, .per_sample = mean(vJv, {0}) + 0.5 * squared_norm(score)};
  result.loss = mean(result.per_sample);
  return result;
}

ExactScoreMatchingResult implicit_score_matching_exact(const Velocity& network, const Tensor& x, const Tensor& t, const Labels& labels) {
  const auto [score, trace] = traced(score_field(network, t, labels.dropped()), x);
  ExactScoreMatchingResult result{.loss = {}, .score = score, .trace = trace, .per_sample = trace + 0.5 * squared_norm(score)};
  result.loss = mean(result.per_sample);
  return result;
}

VelocityDivergence divergence_exact(const Velocity& network, const Tensor& x, const Tensor& t, const Tensor& labels) {
  const auto [velocity, divergence] = traced([&](const Tensor& z) { return network(z, {.t = t, .r = t}, labels); }, x);
  return {velocity, divergence};
}

}  // namespace fluxion
