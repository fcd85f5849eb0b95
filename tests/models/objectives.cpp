#include <cmath>
#include <numbers>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/objectives/consistency.h"
#include "models/objectives/flow.h"
#include "models/objectives/flow_map.h"
#include "tests/catch.h"
#include "tests/worst.h"

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
    result = testing::worse_of(result, max(abs(tensor - b.at(name))).item<double>());
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

namespace {

// P(t < at) of the formulas of models/objectives/times.h.
double share_below(const TimeSampler& sampler, double at) {
  if (sampler.shift != 1) {
    TimeSampler plain = sampler;
    plain.shift = 1;
    return share_below(plain, at / (sampler.shift - (sampler.shift - 1) * at));
  }
  const double pi = std::numbers::pi;
  switch (sampler.density) {
    case TimeDensity::uniform:
      return at;
    case TimeDensity::cosmap:
      return 2 / pi * std::atan(at / (1 - at));
    case TimeDensity::logit_normal:
      return std::erfc(-(std::log(at / (1 - at)) - sampler.mean) / sampler.std / std::sqrt(2)) / 2;
    case TimeDensity::u_shaped: {
      const double a = sampler.slope;
      return (std::exp(a * at) - std::exp(a * (1 - at)) + std::exp(a) - 1) / (2 * std::expm1(a));
    }
    case TimeDensity::mode:
      break;
  }
  // t falls with u: t(u) < at beyond the u where they are equal.
  double low = 0, high = 1;
  for (int i = 0; i < 60; ++i) {
    const double u = (low + high) / 2, c = std::cos(pi / 2 * u);
    (1 - u - sampler.mode_scale * (c * c - 1 + u) > at ? low : high) = u;
  }
  return 1 - low;
}

std::vector<TimeSampler> time_samplers() {
  return {{},
          {.mean = 1, .std = 2},
          {.density = TimeDensity::uniform},
          {.density = TimeDensity::mode},
          {.density = TimeDensity::mode, .mode_scale = -1},
          {.density = TimeDensity::mode, .mode_scale = largest_mode_scale},
          {.density = TimeDensity::cosmap},
          {.density = TimeDensity::u_shaped, .slope = 0.1},
          {.density = TimeDensity::u_shaped},
          {.density = TimeDensity::u_shaped, .slope = 10},
          {.shift = 3},
          {.density = TimeDensity::uniform, .shift = 0.25},
          {.density = TimeDensity::cosmap, .shift = 3}};
}

}  // namespace

TEST_CASE("times have the densities of their formulas") {
  const Device device = cpu({.threads = 1});
  constexpr std::int64_t count = 100000;
  for (const TimeSampler& sampler : time_samplers())
    for (const DType dtype : {DType::f32, DType::f64}) {
      INFO(static_cast<int>(sampler.density)
           << " " << sampler.mode_scale << " " << sampler.slope << " " << sampler.shift);
      const Tensor t = draw_times(sampler, random_key(1, device), {count}, dtype).to(DType::f64);
      CHECK(min(t).item<double>() >= 0);
      CHECK(max(t).item<double>() <= 1);
      for (const double below : {0.05, 0.3, 0.5, 0.8}) {
        const double want = share_below(sampler, below);
        CHECK(mean(lt(t, below).to(DType::f64)).item<double>() ==
              Approx(want).margin(5 * std::sqrt(want * (1 - want) / count)));
      }
    }
}

TEST_CASE("stratified times come one from each share of their density") {
  const Device device = cpu({.threads = 1});
  for (TimeSampler sampler : time_samplers()) {
    if (sampler.density == TimeDensity::u_shaped) continue;
    sampler.stratified = true;
    for (const std::int64_t count : {1, 7, 64}) {
      INFO(static_cast<int>(sampler.density) << " " << sampler.shift << ", " << count);
      const std::vector<double> t =
          draw_times(sampler, random_key(1, device), {count}, DType::f64).to_host<double>();
      for (std::int64_t i = 0; i < count; ++i) {
        double share = share_below(sampler, t[static_cast<std::size_t>(i)]);
        if (sampler.density == TimeDensity::mode) share = 1 - share;  // t falls with u
        CHECK(share >= static_cast<double>(i) / static_cast<double>(count) - 1e-6);
        CHECK(share <= static_cast<double>(i + 1) / static_cast<double>(count) + 1e-6);
      }
    }
  }
  const Tensor x = zeros({8, 2}, DType::f64, device), key = random_key(2, device);
  CHECK_NOTHROW(draw({.times = {.stratified = true}, .equal_share = 1}, x, {}, 0, key));
  CHECK_THROWS_AS(draw({.times = {.stratified = true}}, x, {}, 0, key), Error);
}

TEST_CASE("times out of range are refused") {
  const Tensor key = random_key(1, cpu({.threads = 1}));
  for (const TimeSampler& sampler :
       {TimeSampler{.density = TimeDensity::u_shaped, .slope = 0}, TimeSampler{.std = 0},
        TimeSampler{.shift = 0}, TimeSampler{.shift = std::nan("")},
        TimeSampler{.density = TimeDensity::mode, .mode_scale = 1.8},
        TimeSampler{.density = TimeDensity::u_shaped, .stratified = true}})
    CHECK_THROWS_AS(draw_times(sampler, key, {3}, DType::f32), Error);
}

TEST_CASE("the quantile of the normal distribution") {
  const Device device = cpu({.threads = 1});
  std::vector<double> u;
  for (int i = 1; i < 200; ++i) u.push_back(i / 200.0);
  for (const double small : {1e-7, 1e-5, 1e-3, 1 - 1e-5, 1 - 1e-3}) u.push_back(small);
  const auto count = static_cast<std::int64_t>(u.size());
  const std::vector<double> q = normal_quantile(Tensor::from(u, {count}, device)).to_host<double>();
  for (std::size_t i = 0; i < u.size(); ++i) {
    INFO(u[i]);
    const double reached = std::erfc(-q[i] / std::sqrt(2)) / 2;
    // The error of q is that of u over the density.
    const double density = std::exp(-q[i] * q[i] / 2) / std::sqrt(2 * std::numbers::pi);
    CHECK(std::abs(reached - u[i]) / density < 3e-6 * (1 + std::abs(q[i])));
  }
  for (const double end : {0.0, 1.0, 0.5})
    CHECK(std::isfinite(normal_quantile(full({}, end, DType::f32, device)).item<float>()));
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

TEST_CASE("sCM distils the slope of its teacher where it is told to") {
  const Setup setup;
  const Tensor e = normal(random_key(4, setup.device), {8, 2}, DType::f64);
  const Tensor t = 0.1 + 1.3 * uniform(random_key(5, setup.device), {8}, DType::f64);
  const Velocity network = bind_parameters(setup.network, setup.parameters);
  const auto result = [&](double distils, double warmup, const Velocity& teacher) {
    return consistency_trigflow(network, setup.x, e, t, zeros_like(t), {},
                                {.warmup = warmup,
                                 .teacher = teacher,
                                 .distils = eq(full({}, distils, DType::f64, e.device()), 1.0)});
  };
  const auto largest = [](const Tensor& x) { return max(abs(x)).item<double>(); };
  // Of the network itself nothing is left to learn at first: F is the teacher's.
  CHECK(largest(result(1, 0, network).change) == 0);
  CHECK(largest(result(1, 1, network).change) > 1e-3);
  const TrigFlowResult plain = consistency_trigflow(network, setup.x, e, t, zeros_like(t));
  const Tensor a = expand_dims(t, 1);
  // Before, F regresses on the slope of the data, each sample with the same weight.
  const Tensor slope = cos(a) * e - sin(a) * setup.x / 0.5;
  CHECK(largest(result(0, 1, network).tangent - (slope - plain.F) / std::sqrt(2.0)) < 1e-12);
  // A teacher that knows x and e gives their slope, divided by sigma_data.
  const Velocity exact = [&](const Tensor&, const Times&, const Tensor&) { return slope; };
  CHECK(largest(result(1, 1, exact).tangent - plain.tangent) < 1e-12);
  CHECK(largest(result(1, 1, exact).dFdt - plain.dFdt) < 1e-12);
}
