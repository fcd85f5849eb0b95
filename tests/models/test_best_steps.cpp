// Steps by dynamic programming: against all ways there are, and on the flow of a mixture.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/cpu.h"
#include "models/data/points.h"
#include "models/data/random.h"
#include "models/exact/gaussian_mixture.h"
#include "models/samplers/sampler.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// The least cost of all ways from `from` to the last place.
double least_of_all(const std::vector<double>& cost, std::size_t stops, std::size_t from,
                    std::size_t steps) {
  if (steps == 0) return from + 1 == stops ? 0 : std::numeric_limits<double>::infinity();
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t to = from + 1; to < stops; ++to)
    least = std::min(least, cost[from * stops + to] + least_of_all(cost, stops, to, steps - 1));
  return least;
}

std::vector<GaussianComponent> planar(const char* name) {
  std::vector<GaussianComponent> components;
  const PlanarMixture known = planar_mixture(name);
  for (const auto& [x, y] : known.centres)
    components.push_back(isotropic(1, {x, y}, known.deviation * known.deviation));
  return components;
}

struct BestStepsCase {
  Device device = cpu({.threads = 1});
  GaussianMixture mixture{planar("8gaussians"), device};
  Predictor exact = mixture.predictor(Prediction::velocity, Path::linear());

  Sampler sampler(SamplerOptions options) const {
    options.kind = SamplerKind::ode_euler;
    return Sampler(exact, {2}, 0, DType::f64, device, options);
  }
};

}  // namespace

TEST_CASE("the stops that are found cost the least of all", "[samplers]") {
  for (const std::size_t stops : {2u, 5u, 9u})
    for (std::size_t steps = 1; steps < stops; ++steps) {
      INFO(stops << " stops, " << steps << " steps");
      std::vector<double> cost(stops * stops);
      RandomSequence random(stops, steps);
      for (double& each : cost) each = random.uniform();
      const std::vector<std::size_t> way = best_stops(cost, stops, steps);
      REQUIRE(way.size() == steps + 1);
      CHECK(way.front() == 0);
      CHECK(way.back() == stops - 1);
      double total = 0;
      for (std::size_t k = 0; k < steps; ++k) {
        REQUIRE(way[k] < way[k + 1]);
        total += cost[way[k] * stops + way[k + 1]];
      }
      CHECK(total == Approx(least_of_all(cost, stops, 0, steps)));
    }
  CHECK_THROWS_AS(best_stops(std::vector<double>(9), 3, 0), Error);
  CHECK_THROWS_AS(best_stops(std::vector<double>(9), 3, 3), Error);
  CHECK_THROWS_AS(best_stops(std::vector<double>(8), 3, 1), Error);
  const double infinite = std::numeric_limits<double>::infinity();
  CHECK_THROWS_AS(best_stops(std::vector<double>(9, infinite), 3, 1), Error);
}

TEST_CASE("a step costs what it misses the way by", "[samplers]") {
  // A way of two samples in one dimension: 0, 1, 3 and 0, 0, 1 at times 1, .5, 0.
  const std::vector<double> times{1, 0.5, 0};
  const std::vector<double> cost = step_costs({{0, 0}, {1, 0}, {3, 1}}, times, 2);
  CHECK(cost[1] == 0);                        // a step of the way itself
  CHECK(cost[2] == Approx((1.0 + 1.0) / 2));  // 2 instead of 3, 0 instead of 1
  CHECK(cost[5] == 0);
  CHECK_THROWS_AS(step_costs({{0, 0}, {1}}, std::vector<double>{1, 0}, 2), Error);
}

TEST_CASE("the best steps of eight Gaussians cost less than equal ones", "[samplers]") {
  const BestStepsCase c;
  const Tensor noise = normal(random_key(3, c.device), {400, 2}, DType::f64);
  for (const std::int64_t steps : {2, 4, 8}) {
    INFO(steps << " steps");
    SamplerOptions best;
    best.steps = steps;
    best.grid = GridKind::best;
    const Sampler found = c.sampler(best);
    REQUIRE(found.best());
    INFO("cost " << found.best()->cost << ", of equal steps " << found.best()->equal_cost);
    CHECK(found.best()->cost < 0.9 * found.best()->equal_cost);
    CHECK(found.best()->grid.size() == static_cast<std::size_t>(steps + 1));
    CHECK(found.evaluations() == 0);
    // The times can be given, too.
    SamplerOptions given = best;
    for (const GridPoint& point : found.grid()) given.times.push_back(point.t);
    CHECK(c.sampler(given)(noise).to_host<double>() == found(noise).to_host<double>());
    CHECK_FALSE(c.sampler(given).best());
  }
  // Every stop of the fine grid: that grid, at no cost.
  SamplerOptions options;
  options.grid = GridKind::best;
  options.kind = SamplerKind::ode_euler;
  options.steps = 3;
  options.times = {1, 0.5, 0};
  CHECK_THAT(message_of([&] { check(options); }), has_text("one time more"));
  options.times = {1, 0.5, 0.5, 0};
  CHECK_THAT(message_of([&] { check(options); }), has_text("each below"));
  options.times = {};
  CHECK_NOTHROW(check(options));
  CHECK_THAT(message_of([&] { make_stepper(options); }), has_text("looked for"));
  options.kind = SamplerKind::ode_heun;
  CHECK_THAT(message_of([&] { check(options); }), has_text("euler, not heun"));
}

TEST_CASE("the best steps are those of the classes that were trained", "[samplers]") {
  // Class 0 goes straight, so that any steps cost nothing; class 1 does not.
  const Device device = cpu({.threads = 1});
  Predictor predictor;
  predictor.network = [](const Tensor& z, const Times& times, const Tensor& labels) {
    const Tensor bend = reshape(labels.to(DType::f64), {-1, 1}) * 20.0;
    const Tensor time = times.t.rank() == 0 ? times.t : reshape(times.t, {-1, 1});
    return 1.0 + bend * time * time + 0.0 * z;
  };
  SamplerOptions options;
  options.kind = SamplerKind::ode_euler;
  options.steps = 3;
  options.grid = GridKind::best;
  const auto cost = [&](const std::vector<std::int32_t>& classes) {
    options.best_classes = classes;
    return find_best_steps(options, predictor, {2}, 2, DType::f64, device).cost;
  };
  CHECK(cost({0}) < 1e-10);
  CHECK(cost({1}) > 0.1);
  CHECK(cost({}) == Approx(cost({1}) / 2));
  CHECK(cost({0, 1}) == cost({}));
}
