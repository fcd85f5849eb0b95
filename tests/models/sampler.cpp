#include "models/samplers/sampler.h"

#include <cmath>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/worst.h"

using namespace fluxion;

namespace {

const NetworkConfig mlp = MlpConfig{.data_dim = 2, .hidden = {16}};

double worst(const std::vector<float>& a, const std::vector<float>& b) {
  double result = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    result = testing::worse_of(result, std::abs(a[i] - b.at(i)));
  return result;
}

// v(z, t) = z, whose exact flow from time 1 to 0 is division by e.
Tensor exponential(const Tensor& z, const Times&, const Tensor&) { return z; }

double end_error(SamplerKind kind, int steps, const Device& device) {
  Tensor z = full({1, 1}, 1, DType::f64, device);
  for (int i = 0; i < steps; ++i) {
    const auto time = [&](int k) {
      return full({}, 1 - static_cast<double>(k) / steps, DType::f64, device);
    };
    z = sampler_step(kind, exponential, z, time(i), time(i + 1));
  }
  return std::abs(z.item<double>() - std::exp(-1));
}

}  // namespace

TEST_CASE("samples do not depend on the batch, and a padded last chunk compiles nothing") {
  const Device device = cpu({.threads = 1});
  const Parameters parameters = initialise(mlp, random_key(1, device));
  const Sampler chunked(mlp, parameters, {.steps = 2}), whole(mlp, parameters, {.steps = 2});
  std::vector<std::int64_t> progress;
  const std::vector<float> a =
      chunked.sample(10, 4, 5, {}, {}, [&](std::int64_t done) { progress.push_back(done); });
  const std::vector<float> b = whole.sample(10, 10, 5), longer = chunked.sample(12, 4, 5);
  CHECK(a.size() == 20);
  CHECK(worst(a, b) < 1e-6);
  CHECK(std::equal(a.begin(), a.end(), longer.begin()));
  CHECK(chunked.traces() == 1);
  CHECK(progress == std::vector<std::int64_t>{4, 8, 10});
  CHECK(worst(a, chunked.sample(10, 4, 6)) > 0.01);
}

TEST_CASE("one step of MeanFlow is e - u(e, 1, 0)") {
  const Device device = cpu({.threads = 1});
  const Parameters parameters = initialise(mlp, random_key(1, device));
  const Tensor e = normal(random_key(2, device), {3, 2});
  const Tensor u =
      apply(mlp, parameters, e,
            {.t = full({3}, 1, DType::f32, device), .r = full({3}, 0, DType::f32, device)});
  const Sampler sampler(mlp, parameters);
  CHECK(worst(sampler(e).to_host<float>(), (e - u).to_host<float>()) < 1e-6);
  const Tensor path = sampler.path(e);
  CHECK(path.shape() == Shape{2, 3, 2});
  CHECK(worst(slice_axis(path, 0, 0, 1).to_host<float>(), e.to_host<float>()) == 0);
  CHECK(sampler.evaluations() == 1);
}

TEST_CASE("the solvers have the orders 1, 2 and 4") {
  const Device device = cpu({.threads = 1});
  for (const auto& [kind, order] :
       {std::pair(SamplerKind::ode_euler, 1), std::pair(SamplerKind::ode_heun, 2),
        std::pair(SamplerKind::ode_rk4, 4)}) {
    INFO(to_string(kind));
    CHECK(std::log2(end_error(kind, 16, device) / end_error(kind, 32, device)) ==
          Approx(order).margin(0.1));
  }
}

TEST_CASE("guidance extrapolates from the null class") {
  const Device device = cpu({.threads = 1});
  // A velocity that is its label.
  const Velocity labelled = [](const Tensor& z, const Times&, const Tensor& labels) {
    return zeros_like(z) + expand_dims(labels.to(z.dtype()), 1);
  };
  const Tensor z = zeros({2, 1}, DType::f64, device), t = full({2}, 1, DType::f64, device);
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{1, 3}, {2}, device);
  const Tensor v = guided(labelled, 2, 5)(z, {.t = t, .r = t}, labels);
  CHECK(v.to_host<double>() == std::vector<double>{-3, 1});
}

TEST_CASE("a sampler refuses what it can't do") {
  const Device device = cpu({.threads = 1});
  const Parameters parameters = initialise(mlp, random_key(1, device));
  CHECK_THROWS_AS(Sampler(mlp, parameters, {.steps = 0}), Error);
  CHECK_THROWS_AS(Sampler(mlp, parameters, {.guidance = 2}), Error);
  CHECK_THROWS_AS(Sampler(mlp, parameters).sample(2, 2, 0, {0, 1}), Error);
  CHECK_THROWS_AS(sampler_kind_from("magic"), FormatError);
}
