// Distributions in closed form: against each other, and against derivatives and sums.
#include <cmath>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/exact/gaussian_mixture.h"
#include "models/objectives/flow_map.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

struct ExactCase {
  Device device = cpu({.threads = 1});
  GaussianMixture mixture{{{.weight = 1, .mean = {1, -1}, .covariance = {0.5, 0.2, 0.2, 0.3}},
                           isotropic(3, {-2, 0.5}, 0.1)},
                          device};
  Gaussian gaussian{{0.3, -0.7}, {0.5, 0.3, 0.3, 0.4}, device};
  Tensor z = normal(random_key(1, device), {5, 2}, DType::f64);
  Tensor t = Tensor::from(std::vector<double>{0.2, 0.4, 0.5, 0.7, 0.9}, {5}, device);
  Tensor r = Tensor::from(std::vector<double>{0.1, 0.0, 0.4, 0.3, 0.2}, {5}, device);
};

double worst_of(const Tensor& a, const Tensor& b) { return max(abs(a - b)).item<double>(); }

}  // namespace

TEST_CASE("a mixture's score is the gradient of its log density, on every path", "[exact]") {
  const ExactCase c;
  for (const Path& path : {Path::linear(), Path::vp(), Path::trigflow()}) {
    const auto density = [&](const Tensor& z) {
      return sum(c.mixture.log_density(z, path.at(c.t)));
    };
    const Tensor score = c.mixture.predictor(Prediction::score, path)(Prediction::score, c.z, c.t);
    CHECK(worst_of(grad(density)(c.z), score) < 1e-11);
    // All of its predictions agree.
    for (const Prediction each : {Prediction::velocity, Prediction::noise, Prediction::data,
                                  Prediction::v, Prediction::F}) {
      const Tensor direct = c.mixture.network(each, path)(c.z, {.t = c.t, .r = c.t}, {});
      const Tensor converted = convert_prediction(score, Prediction::score, each, path, c.z, c.t);
      CHECK(worst_of(direct, converted) < 1e-11);
    }
  }
}

TEST_CASE("a mixture's density obeys the continuity equation", "[exact]") {
  // d log p / dt = -div v - v . score, on the linear path.
  const ExactCase c;
  const Path path = Path::linear();
  const auto log_p = [&](const Tensor& t) { return c.mixture.log_density(c.z, path.at(t)); };
  const Tensor rate = jvp(log_p, std::tuple(c.t), std::tuple(ones_like(c.t))).second;
  const auto v = [&](const Tensor& z) {
    return c.mixture.network(Prediction::velocity, path)(z, {.t = c.t, .r = c.t}, {});
  };
  Tensor divergence = zeros_like(c.t);
  for (std::int64_t i = 0; i < 2; ++i) {
    const Tensor unit =
        Tensor::from(std::vector<double>{i == 0 ? 1.0 : 0, i == 1 ? 1.0 : 0}, {1, 2}, c.device);
    const Tensor direction = broadcast_to(unit, {5, 2});
    divergence =
        divergence + sum(jvp(v, std::tuple(c.z), std::tuple(direction)).second * direction, {1});
  }
  const Tensor score = c.mixture.network(Prediction::score, path)(c.z, {.t = c.t, .r = c.t}, {});
  CHECK(worst_of(rate, -divergence - sum(v(c.z) * score, {1})) < 1e-10);
}

TEST_CASE("a Gaussian's flow map solves its flow, and its average velocity the identities",
          "[exact]") {
  const ExactCase c;
  for (const Path& path : {Path::linear(), Path::vp(), Path::trig(), Path::trigflow()}) {
    INFO(to_string(path.kind));
    const Velocity velocity = c.gaussian.network(Prediction::velocity, path);
    const auto map = [&](const Tensor& r) { return c.gaussian.flow_map(path, c.z, c.t, r); };
    const Tensor r = path.kind == PathKind::vp ? c.r + 0.01 : c.r;
    const auto [end, rate] = jvp(map, r, ones_like(r));
    CHECK(worst_of(rate, velocity(end, {.t = r, .r = r}, {})) < 1e-10);
    CHECK(worst_of(c.gaussian.flow_map(path, end, r, c.t), c.z) < 1e-11);
  }
  const Path path = Path::linear();
  const Velocity u = c.gaussian.network(Prediction::average_velocity, path);
  const Tensor v = u(c.z, {.t = c.t, .r = c.t}, {});
  CHECK(worst_of(v, c.gaussian.network(Prediction::velocity, path)(c.z, {c.t, c.t}, {})) == 0);
  // MeanFlow: u + (t - r) du/dt = v along the flow.
  const auto of = [&](const Tensor& z, const Tensor& t, const Tensor& r) {
    return u(z, {.t = t, .r = r}, {});
  };
  const auto [value, rate] =
      jvp(of, std::tuple(c.z, c.t, c.r), std::tuple(v, ones_like(c.t), zeros_like(c.r)));
  CHECK(worst_of(value + expand_dims(c.t - c.r, 1) * rate, v) < 1e-10);
  // Splitting at s, and the losses of flow maps.
  const Tensor s = 0.5 * (c.t + c.r);
  const Tensor middle = c.z - expand_dims(c.t - s, 1) * of(c.z, c.t, s);
  CHECK(worst_of(value, 0.5 * (of(c.z, c.t, s) + of(middle, s, c.r))) < 1e-10);
  // Draws whose interpolant is z: x = e = z.
  FlowDraws draws;
  draws.x = draws.e = c.z;
  draws.t = c.t;
  draws.r = c.r;
  CHECK(lagrangian_self_distillation(u, draws).loss.item<double>() < 1e-20);
  CHECK(eulerian_self_distillation(u, draws).loss.item<double>() < 1e-20);
}

TEST_CASE("samples of a mixture have its moments", "[exact]") {
  const ExactCase c;
  const std::int64_t n = 20000;
  const Tensor x = c.mixture.samples(random_key(3, c.device), n);
  const std::vector<double> mean = fluxion::mean(x, {0}).to_host<double>();
  // Mean (1 * (1, -1) + 3 * (-2, .5)) / 4; variances from 1/4 S1 + 3/4 S2 + spread of the means.
  const double errors = 6 / std::sqrt(static_cast<double>(n));
  CHECK(mean[0] == Approx(-1.25).margin(errors * 1.4));
  CHECK(mean[1] == Approx(0.125).margin(errors * 0.8));
  const double variance =
      fluxion::mean(square(x - fluxion::mean(x, {0})), {0}).to_host<double>()[0];
  const double want = 0.25 * 0.5 + 0.75 * 0.1 + 0.25 * 0.75 * 9;
  CHECK(variance == Approx(want).margin(errors * want * 1.5));
}

TEST_CASE("the denoiser of points is the mixture's of Gaussians without width", "[exact]") {
  const ExactCase c;
  const std::vector<double> at{0.5, 1, -1, 2, 0, -1.5};
  const EmpiricalData points(Tensor::from(at, {3, 2}, c.device));
  const GaussianMixture sharp(
      {isotropic(1, {0.5, 1}, 0), isotropic(1, {-1, 2}, 0), isotropic(1, {0, -1.5}, 0)}, c.device);
  for (const Prediction each : {Prediction::data, Prediction::velocity, Prediction::score}) {
    const Times times{.t = c.t, .r = c.t};
    CHECK(worst_of(points.network(each, Path::linear())(c.z, times, {}),
                   sharp.network(each, Path::linear())(c.z, times, {})) < 1e-11);
  }
  // At little noise it names the nearest point.
  const Tensor near = Tensor::from(std::vector<double>{0.49, 1.01}, {1, 2}, c.device);
  const Tensor found = points.denoised(near, Path::edm().at(full({1}, 0.01, DType::f64, c.device)));
  CHECK(worst_of(found, Tensor::from(std::vector<double>{0.5, 1}, {1, 2}, c.device)) < 1e-12);
}

TEST_CASE("distributions that there can't be are refused", "[exact]") {
  const Device device = cpu({.threads = 1});
  CHECK_THROWS_AS(GaussianMixture({}, device), ShapeError);
  CHECK_THROWS_AS(Gaussian({0, 0}, {1}, device), ShapeError);
  CHECK_THAT(message_of([&] {
               Gaussian({0, 0}, {1, 2, 2, 1}, device);
             }),
             has_text("negative eigenvalue"));
  CHECK_THAT(message_of([&] { Gaussian({0, 0}, {1, 0.5, 0, 1}, device); }), has_text("symmetric"));
  CHECK_THAT(message_of([&] { GaussianMixture({isotropic(0, {0}, 1)}, device); }),
             has_text("weight"));
  CHECK_THROWS_AS(EmpiricalData(zeros({3}, DType::f64, device)), ShapeError);
  const Gaussian gaussian({0, 0}, {1, 0, 0, 1}, device);
  CHECK_THROWS_AS(gaussian.mixture().network(Prediction::end_point, Path::edm()), Error);
  CHECK_THROWS_AS(gaussian.mixture().log_density(zeros({3}, DType::f64, device)), ShapeError);
}
