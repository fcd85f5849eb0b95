#include "models/objectives/flow.h"

#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"

namespace fluxion {
namespace {

// Draws with r replaced by t where they are to be equal.
Tensor effective_r(const FlowDraws& draws) {
  return draws.equal_mask ? where(draws.equal_mask, draws.t, draws.r) : draws.r;
}

// u(z, t, r) and its derivative along (dz, dt, dr) = (v, 1, 0); an empty v stands for u(z, t, t).
std::pair<Tensor, Tensor> along_flow(const Velocity& network, const Tensor& z, const Tensor& t,
                                     const Tensor& r, const Tensor& labels, const Tensor& v) {
  const Tensor direction = v ? v : stop_gradient(network(z, {t, t}, labels));
  const auto u = [&](const Tensor& z, const Tensor& t, const Tensor& r) {
    return network(z, {t, r}, labels);
  };
  return jvp(u, std::tuple(z, t, r), std::tuple(direction, ones_like(t), Tensor()));
}

// The same where rows k.. have r = t, and need no derivative: zero stands for it.
std::pair<Tensor, Tensor> along_flow_first_rows(const Velocity& network, const Tensor& z,
                                                const Tensor& t, const Tensor& r,
                                                const Tensor& labels, const Tensor& v,
                                                std::int64_t k) {
  const std::int64_t batch = z.size(0);
  if (k < 0 || k >= batch) return along_flow(network, z, t, r, labels, v);
  const auto first = [&](const Tensor& x) { return x ? slice_axis(x, 0, 0, k) : x; };
  const auto rest = [&](const Tensor& x) { return x ? slice_axis(x, 0, k, batch) : x; };
  const Tensor plain = network(rest(z), {rest(t), rest(t)}, rest(labels));
  if (k == 0) return {plain, zeros_like(plain)};
  const auto [u, dudt] = along_flow(network, first(z), first(t), first(r), first(labels), first(v));
  return {concat({u, plain}, 0), concat({dudt, zeros_like(plain)}, 0)};
}

MeanFlowResult meanflow_along(const Velocity& network, const FlowDraws& draws, const Tensor& v,
                              const MeanFlowOptions& options) {
  const Tensor z = interpolate(draws.x, draws.e, draws.t), r = effective_r(draws);
  MeanFlowResult result;
  const Tensor direction = options.own_direction ? Tensor() : v;
  std::tie(result.u, result.dudt) = along_flow_first_rows(
      network, z, draws.t, r, draws.labels.dropped(), direction, options.jvp_rows);
  result.target = stop_gradient(v - per_sample(draws.t - r, z.rank()) * result.dudt);
  result.error = squared_norm(result.u - result.target);
  result.weight = adaptive_weight(result.error, options.c, options.p);
  result.loss = mean(result.weight * result.error);
  return result;
}

}  // namespace

FlowMatchingResult flow_matching(const Velocity& network, const FlowDraws& draws,
                                 const FlowMatchingOptions& options) {
  FlowMatchingResult result;
  result.u =
      network(interpolate(draws.x, draws.e, draws.t), {draws.t, draws.t}, draws.labels.dropped());
  result.per_sample = squared_norm(result.u - (draws.e - draws.x));
  if (options.mean_over_elements)
    result.per_sample =
        result.per_sample / static_cast<double>(draws.x.elements() / draws.x.size(0));
  result.loss = mean(result.per_sample);
  return result;
}

Tensor adaptive_weight(const Tensor& error, double c, double p) {
  return stop_gradient(pow(error + c, -p));
}

MeanFlowResult meanflow(const Velocity& network, const FlowDraws& draws,
                        const MeanFlowOptions& options) {
  return meanflow_along(network, draws, draws.e - draws.x, options);
}

GuidedMeanFlowResult meanflow_cfg(const Velocity& network, const FlowDraws& draws,
                                  const GuidedMeanFlowOptions& options) {
  if (!draws.labels) throw Error("meanflow_cfg: guidance needs a network with classes and labels");
  const Tensor z = interpolate(draws.x, draws.e, draws.t), v = draws.e - draws.x;
  const Times now{draws.t, draws.t};
  // Terms whose coefficient is zero are not computed.
  Tensor mixed = options.omega * v;
  if (options.kappa != 0) mixed = mixed + options.kappa * network(z, now, draws.labels.label);
  const double rest = 1 - options.omega - options.kappa;
  if (rest != 0) mixed = mixed + rest * network(z, now, draws.labels.null());
  if (draws.labels.drop_mask) mixed = where(per_sample(draws.labels.drop_mask, z.rank()), v, mixed);
  const Tensor guided = stop_gradient(mixed);
  return {meanflow_along(network, draws, guided, options.meanflow), guided};
}

SplitMeanFlowResult split_meanflow(const Velocity& network, const FlowDraws& draws,
                                   const Tensor& lambda) {
  const Tensor z = interpolate(draws.x, draws.e, draws.t), r = effective_r(draws),
               labels = draws.labels.dropped();
  const Tensor s = (1.0 - lambda) * draws.t + lambda * r;
  const Tensor later = network(z, {draws.t, s}, labels);
  SplitMeanFlowResult result;
  result.z_s = z - per_sample(draws.t - s, z.rank()) * later;
  const Tensor earlier = network(result.z_s, {s, r}, labels);
  const Tensor share = per_sample(lambda, z.rank());
  result.target = stop_gradient((1.0 - share) * earlier + share * later);
  result.u = network(z, {draws.t, r}, labels);
  result.per_sample = squared_norm(result.u - result.target);
  result.loss = mean(result.per_sample);
  return result;
}

}  // namespace fluxion
