// AdamW (Loshchilov and Hutter 2019) with clipping and an exponential moving average of the parameters: pure functions on trees, made to be compiled
// into a training step with the state donated.
//
//   auto step = compile([=](const TrainState& state, const Tensor& x, const Tensor& labels, const Tensor& key, const Tensor& learning_rate) {
//     auto [value, gradient] = value_and_grad(loss)(state.parameters, x, labels, key);
//     auto [next, norm] = update(options, state, gradient, learning_rate);
//     return std::tuple(next, value, norm);
//   }, {.donate = {0}});
#pragma once

#include "engine/tree.h"
#include "models/networks/parameters.h"

namespace fluxion {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;    // decoupled: parameters shrink by learning_rate * weight_decay
  double clip_norm = 0;       // gradients longer than this, over all parameters together, are scaled down to it; 0: never
  double ema_decay = 0.9999;  // update n uses min(ema_decay, (1 + n) / (10 + n)), n = 0 first
  bool operator==(const AdamWOptions&) const = default;
};

// What training changes. Frozen parameters are not in it.
struct TrainState {
  Parameters parameters;
  Parameters m, v;  // running means of the gradient and its square
  Parameters ema;   // the averaged parameters
  Tensor step;      // i32, updates done so far
  static auto members(auto& self) { return std::tie(self.parameters, self.m, self.v, self.ema, self.step); }
};

// Zero moments, the average equal to the parameters, step 0. Every tensor is its own buffer, so that the state can be donated.
TrainState make_train_state(const Parameters& trained);

// sqrt of the sum of squares over all tensors: a scalar of their dtype.
Tensor global_norm(const Parameters& tensors);

// One update. learning_rate: floating scalar. Also returns the norm of the gradient before clipping.
struct UpdateResult {
  TrainState state;
  Tensor gradient_norm;
  static auto members(auto& self) { return std::tie(self.state, self.gradient_norm); }
};
UpdateResult update(const AdamWOptions& options, const TrainState& state, const Parameters& gradient, const Tensor& learning_rate);

// The rate of update `step` (0 first), rising linearly over the first `warm_up_steps` updates: rate * min(1, (step + 1) / warm_up_steps).
double warm_up(double rate, std::int64_t step, std::int64_t warm_up_steps);

}  // namespace fluxion
