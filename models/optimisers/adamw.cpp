#include "models/optimisers/adamw.h"

#include <cmath>

#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/tree.h"

namespace fluxion {
namespace {

// 1 - decay^n, accurate where decay is near 1.
Tensor bias_correction(double decay, const Tensor& n) { return -expm1(n * std::log(decay)); }

// decay old + (1 - decay) fresh, written with whichever of the two factors is small: rounded to
// f32, 1 - 0.99999 keeps 24 bits, but 0.99999 only 8 of its distance from 1.
Tensor blended(double decay, const Tensor& old, const Tensor& fresh) {
  return decay > 0.5 ? old + (1 - decay) * (fresh - old) : fresh + decay * (old - fresh);
}

}  // namespace

TrainState make_train_state(const Parameters& trained, std::size_t averages) {
  if (trained.empty()) throw Error("make_train_state: there are no parameters to train");
  const auto zero = [](const Tensor& x) { return zeros_like(x); };
  TrainState state;
  state.parameters = own_copies(trained);
  for (std::size_t i = 0; i < averages; ++i) state.ema.push_back(own_copies(trained));
  state.m = own_copies(map_tree(trained, zero));
  state.v = own_copies(map_tree(trained, zero));
  state.step = Tensor::from(std::vector<std::int32_t>{0}, {}, trained.begin()->second.device());
  return state;
}

Parameters own_copies(const Parameters& parameters) {
  // Evaluated one by one, so that equal values don't come to share a buffer.
  return map_tree(parameters, [](const Tensor& value) {
    const Tensor copy = make_node(Op::identity, NoAttributes{}, {value});
    eval(copy);
    return copy;
  });
}

Tensor global_norm(const Parameters& tensors) {
  Tensor total;
  for (const auto& [name, tensor] : tensors) {
    const Tensor part = sum(square(tensor));
    total = total ? total + part : part;
  }
  if (!total) throw Error("global_norm: there are no tensors");
  return sqrt(total);
}

UpdateResult update(const AdamWOptions& options, const TrainState& state,
                    const Parameters& gradient, const Tensor& learning_rate,
                    const LossScaleOptions& loss_scale) {
  if (state.parameters.empty()) throw Error("update: the state has no parameters");
  if (state.ema.size() != options.ema_decays.size())
    throw Error("update: the state holds " + std::to_string(state.ema.size()) +
                " averages, the options name " + std::to_string(options.ema_decays.size()));
  const DType dtype = state.parameters.begin()->second.dtype();
  const Tensor norm = global_norm(gradient);
  const Tensor scale =
      options.clip_norm > 0 ? options.clip_norm / maximum(norm, options.clip_norm) : Tensor();
  const bool scaled = !state.loss_scale.empty();
  const Tensor counted = scaled ? state.step - state.loss_scale[0].skipped : state.step;
  const Tensor updates_before = counted.to(dtype), updates = updates_before + 1.0;
  const Tensor correction1 = bias_correction(options.beta1, updates),
               correction2 = bias_correction(options.beta2, updates);
  const Tensor rate = learning_rate.to(dtype);
  std::vector<Tensor> ema_rates;
  for (const double decay : options.ema_decays)
    // 1 - min((1 + n) / (10 + n), decay), without the subtraction, which would leave few digits.
    ema_rates.push_back(maximum(9.0 / (updates_before + 10.0), 1 - decay));

  UpdateResult result{.state = state, .gradient_norm = norm};
  for (const auto& [name, parameter] : state.parameters) {
    const auto found = gradient.find(name);
    if (found == gradient.end())
      throw Error("update: there is no gradient of parameter '" + name + "'");
    const Tensor g = scale ? found->second * scale : found->second;
    const Tensor m = blended(options.beta1, state.m.at(name), g);
    const Tensor v = blended(options.beta2, state.v.at(name), square(g));
    Tensor direction = (m / correction1) / (sqrt(v / correction2) + options.epsilon);
    if (options.weight_decay != 0) direction = direction + options.weight_decay * parameter;
    const Tensor moved = parameter - rate * direction;
    result.state.parameters[name] = moved;
    result.state.m[name] = m;
    result.state.v[name] = v;
    for (std::size_t i = 0; i < ema_rates.size(); ++i) {
      const Tensor& average = state.ema[i].at(name);
      result.state.ema[i][name] = average + ema_rates[i] * (moved - average);
    }
  }
  if (scaled) {
    const Tensor finite = is_finite_norm(norm);
    result.state = zip_tree(result.state, state, [&](const Tensor& updated, const Tensor& before) {
      return where(finite, updated, before);
    });
    result.state.loss_scale[0] = next_loss_scale(loss_scale, state.loss_scale[0], finite);
  }
  result.state.step = state.step + 1.0;
  return result;
}

}  // namespace fluxion
