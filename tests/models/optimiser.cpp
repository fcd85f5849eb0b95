#include "models/optimisers/optimiser.h"

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
  const OptimiserOptions options{
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

TEST_CASE("Adam and RAdam follow their papers, written out by hand") {
  const Device device = cpu({.threads = 1});
  for (const OptimiserKind kind : {OptimiserKind::adam, OptimiserKind::radam})
    for (const double beta2 : {0.5, 0.9, 0.999}) {
      INFO(to_string(kind) << " " << beta2);
      const OptimiserOptions options{
          .kind = kind, .beta1 = 0.8, .beta2 = beta2, .epsilon = 1e-3, .weight_decay = 0.1};
      TrainState state = make_train_state(one(2, device));
      double w = 2, m = 0, v = 0;
      int rectified = 0;
      for (int n = 1; n <= 40; ++n) {
        const double gradient = std::sin(3.0 * n) + 0.5, g = gradient + 0.1 * w;
        m = 0.8 * m + 0.2 * g;
        v = beta2 * v + (1 - beta2) * g * g;
        const double m_hat = m / (1 - std::pow(0.8, n)), correction = 1 - std::pow(beta2, n);
        double direction = m_hat / (std::sqrt(v / correction) + 1e-3);
        if (kind == OptimiserKind::radam) {
          const double rho = 2 / (1 - beta2) - 1,
                       rho_n = rho - 2 * n * std::pow(beta2, n) / correction;
          direction = m_hat;
          if (rho_n > 5) {
            ++rectified;
            direction *=
                std::sqrt((rho_n - 4) * (rho_n - 2) * rho / ((rho - 4) * (rho - 2) * rho_n)) *
                std::sqrt(correction) / (std::sqrt(v) + 1e-3);
          }
        }
        w -= 0.1 * direction;
        state = update(options, state, one(gradient, device), rate(0.1, device)).state;
        CHECK(state.parameters.at("w").item<double>() == Approx(w).epsilon(1e-9));
      }
      if (kind == OptimiserKind::radam) CHECK(rectified == (beta2 == 0.5 ? 0 : 35));
    }
}

// rho_n is a difference of 1999 and 1998 at first.
TEST_CASE("RAdam's rectification keeps its digits in single precision, early and late") {
  const Device device = cpu({.threads = 1});
  const OptimiserOptions options{
      .kind = OptimiserKind::radam, .beta1 = 0, .epsilon = 0, .ema_decays = {0}};
  for (const int n : {1, 5, 6, 7, 100, 999, 1000, 1001, 20000, 10000000}) {
    INFO(n);
    const Parameters gradient = {{"w", Tensor::from(std::vector<float>{1}, {1}, device)}};
    TrainState state =
        make_train_state(Parameters{{"w", Tensor::from(std::vector<float>{0}, {1}, device)}});
    // As if all gradients before had been 1.
    const double correction = 1 - std::pow(0.999, n), before = 1 - std::pow(0.999, n - 1);
    state.step = Tensor::from(std::vector<std::int32_t>{n - 1}, {}, device);
    state.v["w"] = Tensor::from(std::vector<float>{static_cast<float>(before)}, {1}, device);
    const double rho = 1999, rho_n = rho - 2.0 * n * std::pow(0.999, n) / correction;
    const double expected =
        rho_n > 5 ? std::sqrt((rho_n - 4) * (rho_n - 2) * rho / ((rho - 4) * (rho - 2) * rho_n))
                  : 1;
    const float moved =
        update(options, state, gradient, Tensor::from(std::vector<float>{1}, {}, device))
            .state.parameters.at("w")
            .item<float>();
    CHECK(-moved == Approx(expected).epsilon(3e-6));
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
        [options = OptimiserOptions{.clip_norm = 1, .ema_decays = std::move(decays)}](
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
