// Runge-Kutta steps for dy/dt = f(y, t), with and without error control. Rows of y [batch, ..] are
// independent problems, each with a time and a step of its own; everything is a graph.
#pragma once

#include <functional>
#include <tuple>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

// f(y, t), t [] or [batch], of the shape of y.
using Slope = std::function<Tensor(const Tensor& y, const Tensor& t)>;

// Stage i is evaluated at t + c_i h, y + h sum_j a_ij k_j; the result is y + h sum_i b_i k_i.
struct Tableau {
  std::vector<double> c;
  std::vector<std::vector<double>> a;  // row i has i entries
  std::vector<double> b;
  std::vector<double> error = {};  // b minus the weights of the embedded method; may be empty
};
const Tableau& midpoint_tableau();
const Tableau& dopri5_tableau();  // Dormand and Prince 1980: order 5, embedded 4, last stage first

// One step; h [] or [batch]. Order 2 for midpoint, 5 for dopri5.
Tensor runge_kutta_step(const Tableau& tableau, const Slope& f, const Tensor& y, const Tensor& t,
                        const Tensor& h);

// dopri5 with error control. A try is accepted if the error
//   e = rms(error / (absolute + relative max(|y|, |y_new|))) <= 1,
// over a sample or, not per_sample, over the whole batch; the next step is h times
// 0.9 e^(-1/5) within [0.2, 10], not above 1 after a rejection. The first step is Hairer's (Hairer,
// Norsett, Wanner 1993, II.4), at the cost of one evaluation more.
struct AdaptiveOptions {
  double relative = 1e-5, absolute = 1e-5;
  bool per_sample = true;
};
struct AdaptiveState {
  Tensor y;         // [batch, ..]
  Tensor t, h;      // [batch], h of the sign of the direction
  Tensor slope;     // f(y, t)
  Tensor rejected;  // bool [batch]: the last try was
  static auto members(auto& self) {
    return std::tie(self.y, self.t, self.h, self.slope, self.rejected);
  }
};
// Dense output: where the solution is at times of one's own, from the stages of the steps that pass
// them, of order 4 (Hairer, Norsett, Wanner 1993, II.6). No evaluation more.
struct DenseOutput {
  std::vector<double> times;
  Tensor states;  // [times, batch, ..], of those that were passed; the others stay as they are
};
// The solution at share theta, [] or [batch], of a step of dopri5 from y to next, by its seven
// slopes.
Tensor dopri5_between(const Tensor& y, const Tensor& next, const std::vector<Tensor>& slopes,
                      const Tensor& h, const Tensor& theta);
AdaptiveState adaptive_start(const Slope& f, const Tensor& y, const Tensor& from, const Tensor& to,
                             const AdaptiveOptions& options);
// One try of every sample that is not at `to` []; the others stay as they are.
AdaptiveState adaptive_step(const Slope& f, const AdaptiveState& state, const Tensor& to,
                            const AdaptiveOptions& options, DenseOutput* dense = nullptr);
// The samples that no try moves any more, bool [batch]: f is not finite where they are, or the last
// try failed and the next is too short for the time to change.
Tensor adaptive_stuck(const AdaptiveState& state, const Tensor& to);

}  // namespace fluxion
