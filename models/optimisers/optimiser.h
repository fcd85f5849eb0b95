// Adam and its kin, with clipping and exponential moving averages of the parameters: pure functions
// on trees, made to be compiled into a training step with the state donated.
//
//   auto step = compile([=](const TrainState& state, const Tensor& x, const Tensor& labels, const
//   Tensor& key, const Tensor& learning_rate) {
//     auto [value, gradient] = value_and_grad(loss)(state.parameters, x, labels, key);
//     auto [next, norm] = update(options, state, gradient, learning_rate);
//     return std::tuple(next, value, norm);
//   }, {.donate = {0}});
#pragma once

#include <string>
#include <vector>

#include "engine/graph/tree.h"
#include "models/networks/parameters.h"
#include "models/optimisers/loss_scale.h"

namespace fluxion {

inline constexpr std::size_t most_averages = 16;

// m and v are running means of the gradient and its square, both corrected for their start at 0.
enum class OptimiserKind {
  adamw,  // Loshchilov and Hutter 2019: m / (sqrt(v) + epsilon), and parameters shrink by
          // learning_rate * weight_decay
  adam,   // Kingma and Ba 2015: the same, with weight_decay * parameter in the gradient instead
  radam,  // Liu et al. 2020: as adam, times how far the variance of 1 / sqrt(v) is known after so
          // few updates; m alone while that is not known at all. As the authors' code and PyTorch,
          // epsilon is added to sqrt(v) before v is corrected
};
std::string to_string(OptimiserKind kind);
OptimiserKind optimiser_kind_from(const std::string& name);  // throws FormatError
const std::vector<std::string>& optimiser_names();

struct OptimiserOptions {
  OptimiserKind kind = OptimiserKind::adamw;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double clip_norm = 0;  // gradients longer than this, over all parameters together, are scaled
                         // down to it; 0: never
  // One average is kept for each; update n of an average uses min(decay, (1 + n) / (10 + n)), n = 0
  // first.
  std::vector<double> ema_decays = {0.9999};
  bool operator==(const OptimiserOptions&) const = default;
};

// What training changes. Frozen parameters are not in it.
struct TrainState {
  Parameters parameters;
  Parameters m, v;  // running means of the gradient and its square
  std::vector<Parameters>
      ema;      // the averaged parameters, one set for each of OptimiserOptions::ema_decays
  Tensor step;  // i32, updates done so far, those that were skipped included
  // One where the loss is scaled, else none.
  std::vector<LossScale> loss_scale = {};
  // What the training method keeps (models/methods/method.h), which updates leave as it is.
  std::map<std::string, Parameters> method = {};
  static auto members(auto& self) {
    return std::tie(self.parameters, self.m, self.v, self.ema, self.step, self.loss_scale,
                    self.method);
  }
};

// Zero moments, `averages` averages equal to the parameters, step 0. Every tensor is its own
// buffer, so that the state can be donated.
TrainState make_train_state(const Parameters& trained, std::size_t averages = 1);

// The same values, evaluated, each in a buffer of its own.
Parameters own_copies(const Parameters& parameters);

// sqrt of the sum of squares over all tensors: a scalar of their dtype.
Tensor global_norm(const Parameters& tensors);

// One update. Where the loss is scaled, `gradient` is that of the loss itself; if its norm is not
// finite, the update is skipped: nothing but the step and the loss scale changes, and the bias
// corrections and warm-ups of averages don't count it. learning_rate: floating scalar. Also returns
// the norm of the gradient before clipping. Throws Error for a missing gradient, or a state that
// holds another number of averages than the options name.
struct UpdateResult {
  TrainState state;
  Tensor gradient_norm;
  static auto members(auto& self) { return std::tie(self.state, self.gradient_norm); }
};
UpdateResult update(const OptimiserOptions& options, const TrainState& state,
                    const Parameters& gradient, const Tensor& learning_rate,
                    const LossScaleOptions& loss_scale = {});

}  // namespace fluxion
