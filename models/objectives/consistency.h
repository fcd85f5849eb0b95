// Consistency models: networks that map every point of a trajectory to its end. Pure functions of
// explicit draws.
#pragma once

#include "engine/graph/tree.h"
#include "models/objectives/draws.h"

namespace fluxion {

// Consistency training (Song et al. 2023) between neighbouring noise levels sigma_lo < sigma_hi,
// [batch] each, with one noise draw e:
//   f(x, sigma) = c_skip x + c_out u(c_in x, ln(sigma) / 4, 0),   f(x, sigma_min) = x
//   mean of pseudo_huber(f(x + sigma_hi e, sigma_hi), f(x + sigma_lo e, sigma_lo) held constant) /
//   (sigma_hi - sigma_lo)
struct ConsistencyOptions {
  double sigma_data = 0.5, sigma_min = 0.002;
  double c = 0.03;  // of the pseudo-Huber distance
};
struct ConsistencyTrainingResult {
  Tensor loss, student, teacher, distance;
  static auto members(auto& self) {
    return std::tie(self.loss, self.student, self.teacher, self.distance);
  }
};
ConsistencyTrainingResult consistency_training(const Velocity& network, const Tensor& x,
                                               const Tensor& e, const Tensor& sigma_lo,
                                               const Tensor& sigma_hi, const Labels& labels = {},
                                               const ConsistencyOptions& options = {});

// Continuous-time consistency training in TrigFlow (Lu and Song 2024): times t in (0, pi/2)
// [batch], x_t = cos(t) x + sin(t) sigma_data e; the tangent comes from a JVP, is normalised per
// sample, and is held constant. w [batch] are learned log-weights.
struct TrigFlowOptions {
  double sigma_data = 0.5;
  double warmup = 1;       // share of the tangent's second term, 0..1
  Tensor warmup_now = {};  // instead of it, where it changes with the step: a scalar
  double c = 0.1;          // of the normalisation
  bool rms_norm = false;   // divide the tangent's norm by sqrt(elements of a sample)
  // Distillation, where `distils`, a boolean scalar, is true: dx_t / dt is sigma_data teacher(x_t /
  // sigma_data, t), the mean of the cos(t) sigma_data e - sin(t) x of data. Before, F learns that
  // mean, as a teacher has to: the tangent is (dx_t / dt / sigma_data - F) / sqrt(elements),
  // since one normalised by its own length, as other tangents are, would lead to a median.
  Velocity teacher = {};
  Tensor distils = {};
};
struct TrigFlowResult {
  Tensor loss, F, dFdt, tangent, square;
  Tensor change;  // [batch], mean square of the tangent before it is normalised
  static auto members(auto& self) {
    return std::tie(self.loss, self.F, self.dFdt, self.tangent, self.square, self.change);
  }
};
TrigFlowResult consistency_trigflow(const Velocity& network, const Tensor& x, const Tensor& e,
                                    const Tensor& t, const Tensor& w, const Labels& labels = {},
                                    const TrigFlowOptions& options = {});

}  // namespace fluxion
