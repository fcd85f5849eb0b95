// Objectives that learn velocities and average velocities: pure functions of explicit draws. Losses
// are means over the batch; |.|^2 sums over all axes of a sample. Everything besides the loss is an
// intermediate, returned for logging and tests.
#pragma once

#include "engine/graph/tree.h"
#include "models/objectives/draws.h"

namespace fluxion {

// Flow matching (Lipman et al. 2022; Liu et al. 2022): mean |u(z, t, t) - (e - x)|^2.
struct FlowMatchingOptions {
  bool mean_over_elements = true;  // divide each sample by its number of elements
};
struct FlowMatchingResult {
  Tensor loss, u, per_sample;
  static auto members(auto& self) { return std::tie(self.loss, self.u, self.per_sample); }
};
FlowMatchingResult flow_matching(const Velocity& network, const FlowDraws& draws,
                                 const FlowMatchingOptions& options = {});

// MeanFlow (Geng et al. 2025): u regresses v - (t - r) du/dt with du/dt the JVP of u along (dz, dt,
// dr) = (v, 1, 0), held constant; each sample is weighted by (error + c)^-p, held constant.
//
// Optionally the JVP's direction is the network's own velocity u(z, t, t) instead of the pair's v,
// as in improved MeanFlow (Geng et al. 2025b). du/dt is linear in dz, so an exact u(z, t, t), the
// mean of v at z, leaves the mean of the target as it is, without the noise that v brings through
// the Jacobian; it costs a forward pass of these rows.
struct MeanFlowOptions {
  double c = 1e-3, p = 1;
  // -1: the JVP runs over all rows. k: rows k.. have r = t by construction
  // (DrawOptions::fixed_share), where the target does not contain the JVP; they get a plain pass.
  // Both give the same numbers.
  std::int64_t jvp_rows = -1;
  bool own_direction = false;  // the JVP goes along u(z, t, t), held constant
};
struct MeanFlowResult {
  Tensor loss, u, dudt, target, error, weight;
  static auto members(auto& self) {
    return std::tie(self.loss, self.u, self.dudt, self.target, self.error, self.weight);
  }
};
// (error + c)^-p, held constant: MeanFlow's weight of a sample. error [batch].
Tensor adaptive_weight(const Tensor& error, double c, double p);
MeanFlowResult meanflow(const Velocity& network, const FlowDraws& draws,
                        const MeanFlowOptions& options = {});

// MeanFlow with guidance built into the target: v becomes
//   omega v + kappa u(z, t, t | label) + (1 - omega - kappa) u(z, t, t | null),   held constant,
//   and v itself where the label was dropped.
// One step of the trained network already contains guidance of scale omega / (1 - kappa), and so
// does its own velocity u(z, t, t).
struct GuidedMeanFlowOptions {
  MeanFlowOptions meanflow;
  double omega = 1, kappa = 0.5;
};
struct GuidedMeanFlowResult {
  MeanFlowResult meanflow;
  Tensor guided;
  static auto members(auto& self) { return std::tie(self.meanflow, self.guided); }
};
GuidedMeanFlowResult meanflow_cfg(const Velocity& network, const FlowDraws& draws,
                                  const GuidedMeanFlowOptions& options = {});

// SplitMeanFlow (Guo et al. 2025): u over an interval equals the mean of u over its parts, [batch]
// lambda saying where it is split. No derivative.
struct SplitMeanFlowResult {
  Tensor loss, u, target, z_s, per_sample;
  static auto members(auto& self) {
    return std::tie(self.loss, self.u, self.target, self.z_s, self.per_sample);
  }
};
SplitMeanFlowResult split_meanflow(const Velocity& network, const FlowDraws& draws,
                                   const Tensor& lambda);

}  // namespace fluxion
