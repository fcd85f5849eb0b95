#include "models/objectives/flow_map.h"

#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"

namespace fluxion {

LagrangianResult lagrangian_self_distillation(const Velocity& network, const FlowDraws& draws,
                                              bool stop_velocity) {
  const Tensor z = interpolate(draws.x, draws.e, draws.t), labels = draws.labels.dropped();
  const auto map = [&](const Tensor& r) {
    return z - per_sample(draws.t - r, z.rank()) * network(z, {.t = draws.t, .r = r}, labels);
  };
  LagrangianResult result;
  std::tie(result.X, result.dXdr) = jvp(map, std::tuple(draws.r), std::tuple(ones_like(draws.r)));
  const Tensor end = stop_velocity ? stop_gradient(result.X) : result.X;
  const Tensor velocity = network(end, {.t = draws.r, .r = draws.r}, labels);
  result.v_end = stop_velocity ? stop_gradient(velocity) : velocity;
  result.per_sample = squared_norm(result.dXdr - result.v_end);
  result.loss = mean(result.per_sample);
  return result;
}

EulerianResult eulerian_self_distillation(const Velocity& network, const FlowDraws& draws,
                                          EulerianGradient gradient) {
  const Tensor z = interpolate(draws.x, draws.e, draws.t), labels = draws.labels.dropped();
  EulerianResult result;
  const bool through = gradient == EulerianGradient::through;
  result.v = network(z, {.t = draws.t, .r = draws.t}, labels);
  const Tensor v = through ? result.v : stop_gradient(result.v);
  const auto u = [&](const Tensor& z, const Tensor& t) {
    return network(z, {.t = t, .r = draws.r}, labels);
  };
  const auto change = [&](const Tensor& dz, const Tensor& dt) {
    return jvp(u, std::tuple(z, draws.t), std::tuple(dz, dt));
  };
  const Tensor one = ones_like(draws.t);
  if (gradient == EulerianGradient::time) {
    const auto [value, along_time] = change(Tensor(), one);
    result.u = value;
    result.dudt = along_time + stop_gradient(change(v, Tensor()).second);
  } else {
    std::tie(result.u, result.dudt) = change(v, one);
  }
  const Tensor target = v - per_sample(draws.t - draws.r, z.rank()) * result.dudt;
  const bool stopped = gradient == EulerianGradient::stopped;
  result.per_sample = squared_norm(result.u - (stopped ? stop_gradient(target) : target));
  result.loss = mean(result.per_sample);
  return result;
}

}  // namespace fluxion
