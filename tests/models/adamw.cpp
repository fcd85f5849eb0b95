#include "models/optimisers/adamw.h"

#include <cmath>

#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

Parameters one(double value, const Device& device) {
  return {{"w", Tensor::from(std::vector<double>{value}, {1}, device)}};
}
Tensor rate(double value, const Device& device) {
  return Tensor::from(std::vector<double>{value}, {}, device);
}

}  // namespace

TEST_CASE("AdamW follows its definition, written out by hand") {
  const Device device = cpu({.threads = 1});
  const AdamWOptions options{
      .beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3, .weight_decay = 0.1, .ema_decays = {0.5, 0.25}};
  TrainState state = make_train_state(one(2, device), 2);
  double w = 2, m = 0, v = 0, ema[2] = {2, 2};
  for (int n = 0; n < 5; ++n) {
    const double g = 3 - n, learning_rate = 0.1 / (n + 1);
    m = 0.8 * m + 0.2 * g;
    v = 0.9 * v + 0.1 * g * g;
    const double m_hat = m / (1 - std::pow(0.8, n + 1)), v_hat = v / (1 - std::pow(0.9, n + 1));
    w -= learning_rate * (m_hat / (std::sqrt(v_hat) + 1e-3) + 0.1 * w);
    for (const int i : {0, 1}) {
      const double decay =
          std::min(options.ema_decays[static_cast<std::size_t>(i)], (1.0 + n) / (10.0 + n));
      ema[i] = decay * ema[i] + (1 - decay) * w;
    }

    const UpdateResult result = update(options, state, one(g, device), rate(learning_rate, device));
    state = result.state;
    CHECK(state.parameters.at("w").item<double>() == Approx(w).epsilon(1e-12));
    for (const int i : {0, 1})
      CHECK(state.ema[static_cast<std::size_t>(i)].at("w").item<double>() ==
            Approx(ema[i]).epsilon(1e-12));
    CHECK(result.gradient_norm.item<double>() == Approx(std::abs(g)).margin(1e-15));
    CHECK(state.step.item<std::int32_t>() == n + 1);
  }
}

TEST_CASE("the first update of Adam has the length of the learning rate, whatever the gradient") {
  const Device device = cpu({.threads = 1});
  for (const double g : {1e-3, -50.0}) {
    const UpdateResult result = update({.epsilon = 0}, make_train_state(one(0, device)),
                                       one(g, device), rate(0.25, device));
    CHECK(result.state.parameters.at("w").item<double>() ==
          Approx(g > 0 ? -0.25 : 0.25).epsilon(1e-12));
  }
}

TEST_CASE("clipping bounds the norm over all parameters together") {
  const Device device = cpu({.threads = 1});
  const Parameters gradient = {{"a", Tensor::from(std::vector<double>{3}, {1}, device)},
                               {"b", Tensor::from(std::vector<double>{4}, {1}, device)}};
  CHECK(global_norm(gradient).item<double>() == Approx(5));
  const Parameters zero = {{"a", zeros({1}, DType::f64, device)},
                           {"b", zeros({1}, DType::f64, device)}};
  const auto moment = [&](double clip) {
    return update({.beta1 = 0, .clip_norm = clip}, make_train_state(zero), gradient,
                  rate(0.1, device))
        .state.m.at("a")
        .item<double>();
  };
  CHECK(moment(1) == Approx(0.6));
  CHECK(moment(10) == Approx(3));
}

TEST_CASE("a compiled update with its state donated is traced once") {
  const Device device = cpu({.threads = 1});
  const auto step = compile(
      [](const TrainState& state, const Tensor& learning_rate) {
        return update({}, state, state.parameters, learning_rate).state;
      },
      {.donate = {0}});
  TrainState state = make_train_state(one(1, device));
  TrainState plain = make_train_state(one(1, device));
  for (int n = 0; n < 3; ++n) {
    state = step(state, rate(0.01 * (n + 1), device));
    plain = update({}, plain, plain.parameters, rate(0.01 * (n + 1), device)).state;
  }
  CHECK(step.traces() == 1);
  CHECK(state.parameters.at("w").item<double>() ==
        Approx(plain.parameters.at("w").item<double>()).epsilon(1e-12));
}

TEST_CASE("an average more is no kernel more") {
  const Device device = cpu({.threads = 1});
  const auto kernels = [&](std::vector<double> decays) {
    const std::size_t averages = decays.size();
    const auto step = compile(
        [options = AdamWOptions{.clip_norm = 1, .ema_decays = std::move(decays)}](
            const TrainState& state, const Parameters& gradient, const Tensor& learning_rate) {
          return update(options, state, gradient, learning_rate).state;
        },
        {.donate = {0}});
    const Parameters parameters = {{"a", full({8, 8}, 1, DType::f32, device)},
                                   {"b", full({33}, 2, DType::f32, device)}};
    return step
        .memory_report(make_train_state(parameters, averages), parameters,
                       full({}, 0.1, DType::f32, device))
        .kernels;
  };
  const int one = kernels({0.999});
  CHECK(kernels({0.999, 0.9999}) <=
        one + 1);  // the rate of a second average may be a kernel of its own, a scalar
  CHECK(kernels({0.999, 0.9999, 0.99}) <= one + 2);
}

TEST_CASE("a state with another number of averages is refused") {
  const Device device = cpu({.threads = 1});
  CHECK_THROWS_AS(update({.ema_decays = {0.9}}, make_train_state(one(1, device), 2), one(1, device),
                         rate(0.1, device)),
                  Error);
}
