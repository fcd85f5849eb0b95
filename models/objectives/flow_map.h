// Self-distillation of flow maps (Boffi et al., "How to build a consistency model", 2025). The map
// from time t to time r is X(z) = z - (t - r) u(z, t, r); both losses ask it to solve its own flow.
// They need the gradient of a JVP unless gradients are stopped.
#pragma once

#include "engine/graph/tree.h"
#include "models/objectives/draws.h"

namespace fluxion {

// Lagrangian: mean |dX/dr - u(X, r, r)|^2, the end of the map moving with the velocity there.
struct LagrangianResult {
  Tensor loss, X, dXdr, v_end, per_sample;
  static auto members(auto& self) {
    return std::tie(self.loss, self.X, self.dXdr, self.v_end, self.per_sample);
  }
};
// stop_velocity: u(X, r, r), with its argument, is held constant.
LagrangianResult lagrangian_self_distillation(const Velocity& network, const FlowDraws& draws,
                                              bool stop_velocity = true);

// Eulerian: mean |u(z, t, r) - (v - (t - r) du/dt)|^2 with v = u(z, t, t) and du/dt the JVP along
// (dz, dt, dr) = (v, 1, 0).
struct EulerianResult {
  Tensor loss, u, v, dudt, per_sample;
  static auto members(auto& self) {
    return std::tie(self.loss, self.u, self.v, self.dudt, self.per_sample);
  }
};
// What gradients flow through beside the first u. Where v is held constant, and with it the JVP's
// direction, the bracket is linear in the map u(z, t, r), and the loss convex in it.
enum class EulerianGradient {
  stopped,  // nothing: the bracket is held constant
  time,     // the part of du/dt along t alone
  convex,   // du/dt, along a direction that is held constant
  through,  // du/dt, its direction and v
};
EulerianResult eulerian_self_distillation(const Velocity& network, const FlowDraws& draws,
                                          EulerianGradient gradient = EulerianGradient::stopped);

}  // namespace fluxion
