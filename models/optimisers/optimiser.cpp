#include "models/optimisers/optimiser.h"

#include <cmath>
#include <optional>

#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/tree.h"
#include "models/names.h"

namespace fluxion {
namespace {

constexpr EnumNames<OptimiserKind, 3> optimiser_kinds = {{{OptimiserKind::adamw, "adamw"},
                                                          {OptimiserKind::adam, "adam"},
                                                          {OptimiserKind::radam, "radam"}}};

// 1 - decay^n, accurate where decay is near 1.
Tensor bias_correction(double decay, const Tensor& n) { return -expm1(n * std::log(decay)); }

// decay old + (1 - decay) fresh, written with whichever of the two factors is small: rounded to
// f32, 1 - 0.99999 keeps 24 bits, but 0.99999 only 8 of its distance from 1.
Tensor blended(double decay, const Tensor& old, const Tensor& fresh) {
  return decay > 0.5 ? old + (1 - decay) * (fresh - old) : fresh + decay * (old - fresh);
}

// Of RAdam's update n: rho_n = rho - 2 n b^n / (1 - b^n), the number of gradients that v stands
// for, and from it the share of Adam's direction; 0 while rho_n is at most 5, where m itself is
// taken.
struct Rectification {
  Tensor known, share;
};
Rectification rectification(double beta2, const Tensor& n) {
  const double rho = 2 / (1 - beta2) - 1, rate = -std::log(beta2);
  // With x = n rate, rho_n is rho - (2 / rate) x / (e^x - 1), which is a difference of large
  // numbers while x is small: n + (rho - 2 / rate) - (2 / rate) (x / 2 coth(x / 2) - 1) is not.
  const Tensor x = n * rate, x2 = square(x);
  const Tensor tail = 1.0 / 30240 - x2 * (1.0 / 1209600 - x2 * (1.0 / 47900160));
  const Tensor even = x2 * (1.0 / 12 - x2 * (1.0 / 720 - x2 * tail));
  const Tensor rho_n =
      where(lt(x, 0.5), n + (rho - 2 / rate) - 2 / rate * even, rho - 2.0 * n / expm1(x));
  const double ends = rho / ((rho - 4) * (rho - 2));
  return {.known = gt(rho_n, 5.0),
          .share = sqrt(maximum((rho_n - 4.0) * (rho_n - 2.0) / rho_n * ends, 0.0))};
}

}  // namespace

std::string to_string(OptimiserKind kind) { return name_of(optimiser_kinds, kind); }

OptimiserKind optimiser_kind_from(const std::string& name) {
  return value_named(optimiser_kinds, name, "optimiser");
}

const std::vector<std::string>& optimiser_names() {
  static const std::vector<std::string> names = names_of(optimiser_kinds);
  return names;
}

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

UpdateResult update(const OptimiserOptions& options, const TrainState& state,
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
  std::optional<Rectification> rectified;
  // With a smaller beta2, v never stands for more than 5 gradients.
  if (options.kind == OptimiserKind::radam && 2 / (1 - options.beta2) - 1 > 5)
    rectified = rectification(options.beta2, updates);
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
    Tensor g = scale ? found->second * scale : found->second;
    if (options.weight_decay != 0 && options.kind != OptimiserKind::adamw)
      g = g + options.weight_decay * parameter;
    const Tensor m = blended(options.beta1, state.m.at(name), g);
    const Tensor v = blended(options.beta2, state.v.at(name), square(g));
    Tensor direction = m / correction1;
    if (options.kind != OptimiserKind::radam)
      direction = direction / (sqrt(v / correction2) + options.epsilon);
    else if (rectified)
      direction =
          where(rectified->known,
                direction * rectified->share * (sqrt(correction2) / (sqrt(v) + options.epsilon)),
                direction);
    if (options.weight_decay != 0 && options.kind == OptimiserKind::adamw)
      direction = direction + options.weight_decay * parameter;
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
