#include <cmath>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/objectives/flow.h"
#include "models/objectives/flow_map.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

struct Setup {
  Device device = cpu({.threads = 1});
  NetworkConfig network = MlpConfig{.data_dim = 2, .hidden = {16, 16}};
  Parameters parameters = initialise(network, random_key(1, device), DType::f64);
  Tensor x = normal(random_key(2, device), {8, 2}, DType::f64);
  Tensor key = random_key(3, device);
};

double largest_difference(const Parameters& a, const Parameters& b) {
  double result = 0;
  for (const auto& [name, tensor] : a)
    result = std::max(result, max(abs(tensor - b.at(name))).item<double>());
  return result;
}

}  // namespace

TEST_CASE(
    "MeanFlow's JVP over the rows with r != t alone gives the numbers of the JVP over all rows") {
  const Setup setup;
  const FlowDraws draws = draw({.fixed_share = true}, setup.x, {}, 0, setup.key);
  const auto loss = [&](const Parameters& parameters, std::int64_t jvp_rows) {
    return meanflow(bind_parameters(setup.network, parameters), draws, {.jvp_rows = jvp_rows}).loss;
  };
  const auto gradient = [&](std::int64_t jvp_rows) {
    return value_and_grad([&](const Parameters& parameters) { return loss(parameters, jvp_rows); })(
        setup.parameters);
  };
  const auto [full, full_gradient] = gradient(-1);
  const auto [subset, subset_gradient] = gradient(unequal_rows({}, 8));
  CHECK(unequal_rows({}, 8) == 2);
  CHECK(subset.item<double>() == Approx(full.item<double>()).epsilon(1e-12));
  CHECK(largest_difference(full_gradient, subset_gradient) < 1e-12);
}

TEST_CASE("MeanFlow's JVP goes along the network's own velocity where asked to") {
  const Setup setup;
  const Velocity network = bind_parameters(setup.network, setup.parameters);
  const FlowDraws draws = draw({.fixed_share = true}, setup.x, {}, 0, setup.key);
  const Tensor z = interpolate(draws.x, draws.e, draws.t),
               r = where(draws.equal_mask, draws.t, draws.r), v = draws.e - draws.x;
  // du/dt by central differences along u(z, t, t): their error is of order step^2.
  const Tensor own = network(z, {draws.t, draws.t}, {});
  const double step = 1e-4;
  const auto moved = [&](double by) { return network(z + by * own, {draws.t + by, r}, {}); };
  const Tensor dudt = (moved(step) - moved(-step)) / (2 * step);
  const Tensor target = v - expand_dims(draws.t - r, 1) * dudt;
  for (const std::int64_t jvp_rows : {std::int64_t{-1}, unequal_rows({}, 8)}) {
    const MeanFlowResult result =
        meanflow(network, draws, {.jvp_rows = jvp_rows, .own_direction = true});
    CHECK(max(abs(result.target - target)).item<double>() < 1e-6);
  }
  CHECK(max(abs(meanflow(network, draws).target - target)).item<double>() > 1e-3);

  // A velocity that is the same for all pairs is its own mean: both directions coincide.
  FlowDraws constant = draws;
  constant.e = draws.x + 1.0;
  const Velocity exact = [](const Tensor& z, const Times& times, const Tensor&) {
    return 1.0 + expand_dims(times.t - times.r, 1) * sin(z);
  };
  CHECK(max(abs(meanflow(exact, constant, {.own_direction = true}).target -
                meanflow(exact, constant).target))
            .item<double>() < 1e-12);
}

TEST_CASE("gradients of Eulerian self-distillation flow where they are let") {
  const Setup setup;
  const FlowDraws draws = draw({.equal_share = 0}, setup.x, {}, 0, setup.key);
  const Tensor z = interpolate(draws.x, draws.e, draws.t), gap = expand_dims(draws.t - draws.r, 1);
  const auto network = [&](const Parameters& p) { return bind_parameters(setup.network, p); };
  const auto gradient = [&](EulerianGradient kind) {
    return grad([&](const Parameters& p) {
      return eulerian_self_distillation(network(p), draws, kind).loss;
    })(setup.parameters);
  };
  // Central differences of u along (dz, dt), with parameters of their own for its parts. Their
  // error is of order step^2.
  const double step = 1e-4;
  const Tensor v = network(setup.parameters)(z, {draws.t, draws.t}, {});
  const auto surrogate = [&](const Parameters& space, const Parameters& time, const Tensor& along) {
    const auto u = [&](const Parameters& p, double by_z, double by_t) {
      return network(p)(z + by_z * along, {draws.t + by_t, draws.r}, {});
    };
    return (u(space, step, 0) - u(space, -step, 0) + u(time, 0, step) - u(time, 0, -step)) /
           (2 * step);
  };
  struct Case {
    EulerianGradient kind;
    bool space, time, own;
  };
  const Parameters& fixed = setup.parameters;
  for (const Case& each : {Case{EulerianGradient::stopped, false, false, false},
                           Case{EulerianGradient::time, false, true, false},
                           Case{EulerianGradient::convex, true, true, false},
                           Case{EulerianGradient::through, true, true, true}}) {
    const Parameters want = grad([&](const Parameters& p) {
      const Tensor own = each.own ? network(p)(z, {draws.t, draws.t}, {}) : v;
      const Tensor dudt = surrogate(each.space ? p : fixed, each.time ? p : fixed, own);
      const Tensor u = network(p)(z, {draws.t, draws.r}, {});
      return mean(sum(square(u - own + gap * dudt), {1}));
    })(fixed);
    INFO(static_cast<int>(each.kind));
    CHECK(largest_difference(gradient(each.kind), want) < 1e-5);
    if (each.kind != EulerianGradient::stopped)
      CHECK(largest_difference(gradient(EulerianGradient::stopped), want) > 1e-3);
  }
  CHECK(largest_difference(gradient(EulerianGradient::convex),
                           gradient(EulerianGradient::through)) > 1e-3);
}

TEST_CASE("where r = t, MeanFlow's target is the velocity of flow matching") {
  const Setup setup;
  FlowDraws draws = draw({.equal_share = 0}, setup.x, {}, 0, setup.key);
  draws.equal_mask = gt(full_like(draws.t, 1), 0.0);
  const MeanFlowResult result =
      meanflow(bind_parameters(setup.network, setup.parameters), draws, {.p = 0});
  CHECK(max(abs(result.target - (draws.e - draws.x))).item<double>() == 0);
  const FlowMatchingResult plain = flow_matching(bind_parameters(setup.network, setup.parameters),
                                                 draws, {.mean_over_elements = false});
  CHECK(result.loss.item<double>() == Approx(plain.loss.item<double>()).epsilon(1e-12));
}

TEST_CASE("u-shaped times have the density of their formula") {
  const Device device = cpu({.threads = 1});
  const double count = 1e5;
  for (const double a : {0.1, 4.0, 10.0}) {
    INFO(a);
    const Tensor t = u_shaped_times(random_key(1, device), 100000, a, DType::f64);
    CHECK(min(t).item<double>() >= 0);
    CHECK(max(t).item<double>() <= 1);
    // Shares below some times; the density's integral is (e^(a t) - e^(a (1 - t)) + e^a - 1) / 2
    // (e^a - 1).
    for (const double below : {0.05, 0.3, 0.5, 0.8}) {
      const double want =
          (std::exp(a * below) - std::exp(a * (1 - below)) + std::exp(a) - 1) / (2 * std::expm1(a));
      CHECK(mean(lt(t, below).to(DType::f64)).item<double>() ==
            Approx(want).margin(5 * std::sqrt(want * (1 - want) / count)));
    }
  }
  CHECK_THROWS_AS(u_shaped_times(random_key(1, device), 3, 0, DType::f64), Error);
}

TEST_CASE("draws are a function of the key, ordered in time, and in the promised shares") {
  const Device device = cpu({.threads = 1});
  const Tensor x = zeros({4096, 1}, DType::f64, device);
  const Tensor labels = Tensor::from(std::vector<std::int32_t>(4096, 3), {4096}, device);
  const FlowDraws draws = draw({}, x, labels, 10, random_key(7, device));
  const FlowDraws again = draw({}, x, labels, 10, random_key(7, device));
  CHECK(draws.e.to_host<double>() == again.e.to_host<double>());
  CHECK(min(draws.t - draws.r).item<double>() >= 0);

  // Shares and moments lie within six standard errors.
  const double count = 4096;
  CHECK(mean(draws.equal_mask.to(DType::f64)).item<double>() ==
        Approx(0.75).margin(6 * std::sqrt(0.75 * 0.25 / count)));
  CHECK(mean(eq(draws.labels.dropped(), 10.0).to(DType::f64)).item<double>() ==
        Approx(0.1).margin(6 * std::sqrt(0.09 / count)));
  const Tensor logits = log(draws.t / (1.0 - draws.t)) + log(draws.r / (1.0 - draws.r));
  CHECK(mean(logits).item<double>() == Approx(-0.8).margin(6 * std::sqrt(2 / count)));
  CHECK(mean(square(draws.e)).item<double>() == Approx(1).margin(6 * std::sqrt(2 / count)));
}
