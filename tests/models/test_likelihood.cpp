// Likelihoods along the probability flow against densities in closed form, in f64.
#include <cmath>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/exact/gaussian_mixture.h"
#include "models/likelihood/probability_flow.h"
#include "models/objectives/likelihood.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

struct LikelihoodCase {
  Device device = cpu({.threads = 1});
  GaussianMixture mixture{{{.weight = 1, .mean = {1, -1}, .covariance = {0.5, 0.2, 0.2, 0.3}},
                           isotropic(3, {-2, 0.5}, 0.05)},
                          device};
  Tensor x = mixture.samples(random_key(1, device), 24);
};

// The largest error in nats per dimension.
double nats_off(const Tensor& got, const Tensor& want, double dimensions) {
  return max(abs(got - want)).item<double>() / dimensions;
}

}  // namespace

TEST_CASE("the likelihood of a Gaussian mixture is exact to 1e-4 nats per dimension",
          "[likelihood]") {
  const LikelihoodCase c;
  const Tensor want = c.mixture.log_density(c.x);
  for (const Path& path : {Path::linear(), Path::trig()})
    for (const Prediction prediction : {Prediction::velocity, Prediction::average_velocity}) {
      INFO(to_string(path.kind) << ", " << to_string(prediction));
      ProbabilityFlowOptions options;
      const FlowLikelihood found = ProbabilityFlow(c.mixture.predictor(prediction, path))(c.x);
      CHECK(std::abs(mean(found.log_p - want).item<double>()) / 2 < 1e-4);
      options.relative_tolerance = options.absolute_tolerance = 1e-6;
      CHECK(nats_off(ProbabilityFlow(c.mixture.predictor(prediction, path), options)(c.x).log_p,
                     want, 2) < 1e-4);
      options.relative_tolerance = options.absolute_tolerance = 1e-8;
      const FlowLikelihood finer =
          ProbabilityFlow(c.mixture.predictor(prediction, path), options)(c.x);
      CHECK(nats_off(finer.log_p, want, 2) < 1e-6);
      CHECK(finer.evaluations > found.evaluations);
      CHECK(found.z.shape() == c.x.shape());
    }
  // In eight dimensions, with samples of another shape.
  std::vector<double> left(8, -0.5), right(8, 0.7);
  right[3] = -1;
  const GaussianMixture wide({isotropic(1, left, 0.2), isotropic(2, right, 0.4)}, c.device);
  const Tensor points = wide.samples(random_key(2, c.device), 6);
  const Velocity flat = wide.network(Prediction::velocity, Path::linear());
  const Predictor pictures{
      .network =
          [&](const Tensor& z, const Times& times, const Tensor& labels) {
            return reshape(flat(reshape(z, {z.size(0), 8}), times, labels), z.shape());
          },
      .path = Path::linear(),
      .prediction = Prediction::velocity};
  const FlowLikelihood found = ProbabilityFlow(pictures)(reshape(points, {6, 2, 4, 1}));
  CHECK(nats_off(found.log_p, wide.log_density(points), 8) < 1e-4);
}

TEST_CASE("networks of noise, data and scores have the likelihood of their velocity",
          "[likelihood]") {
  // Within what 1 / 1,000 of noise, and data at 1,000 times it, leave open.
  const LikelihoodCase c;
  for (const Path& path : {Path::linear(), Path::vp()})
    for (const Prediction prediction : {Prediction::noise, Prediction::data, Prediction::score}) {
      INFO(to_string(path.kind) << ", " << to_string(prediction));
      const FlowLikelihood found = ProbabilityFlow(c.mixture.predictor(prediction, path))(c.x);
      CHECK(nats_off(found.log_p, c.mixture.log_density(c.x), 2) < 0.05);
    }
}

TEST_CASE("RK4 along the flow is a graph that differentiates, and the number of log_likelihood_rk4",
          "[likelihood]") {
  const LikelihoodCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  ProbabilityFlowOptions options;
  options.rk4_steps = 24;
  const Tensor stepped = ProbabilityFlow(exact, options)(c.x).log_p,
               graph = log_likelihood(exact, c.x, 24);
  CHECK(nats_off(stepped, graph, 1) < 1e-9);
  CHECK(nats_off(graph, log_likelihood_rk4(exact.network, c.x, 24).log_p, 1) < 1e-9);

  // Gradients pass through all of it.
  const auto total = [&](const Tensor& x) { return sum(log_likelihood(exact, x, 3)); };
  const Tensor few = slice_axis(c.x, 0, 0, 4);
  const Tensor direction = normal(random_key(9, c.device), few.shape(), DType::f64);
  const double h = 1e-5;
  const double slope =
      (total(few + h * direction) - total(few - h * direction)).item<double>() / (2 * h);
  CHECK(sum(grad(total)(few) * direction).item<double>() == Approx(slope).epsilon(1e-6));
}

TEST_CASE("Hutchinson's likelihood has the exact one as its mean", "[likelihood]") {
  const LikelihoodCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  ProbabilityFlowOptions options;
  options.probes = 8;
  const ProbabilityFlow flow(exact, options);
  const Tensor want = c.mixture.log_density(c.x);
  // Means over keys; the spread says how far off they may be.
  std::vector<double> means;
  for (std::uint64_t seed = 0; seed < 24; ++seed)
    means.push_back(mean(flow(c.x, {}, random_key(seed, c.device)).log_p - want).item<double>());
  double average = 0, squares = 0;
  for (const double each : means) average += each / 24;
  for (const double each : means) squares += (each - average) * (each - average) / 23;
  CHECK(squares > 0);
  CHECK(std::abs(average) < 4.5 * std::sqrt(squares / 24));
  // The probes stay for a whole solve: the same key gives the same number.
  const Tensor once = flow(c.x, {}, random_key(3, c.device)).log_p,
               again = flow(c.x, {}, random_key(3, c.device)).log_p;
  CHECK(once.to_host<double>() == again.to_host<double>());
  CHECK_THAT(message_of([&] { flow(c.x); }), has_text("key"));
}

TEST_CASE("bits per dimension count levels, and dequantised pictures keep theirs", "[likelihood]") {
  const Device device = cpu({.threads = 1});
  // Uniform on [-1, 1]: 256 levels are 8 bits.
  CHECK(bits_per_dimension(-10 * std::log(2.0), 10, 7) == Approx(8));
  std::vector<double> levels;
  for (int k = 0; k < 256; ++k) levels.push_back(k / 127.5 - 1);
  const Tensor x = Tensor::from(levels, {256}, device);
  const std::vector<double> spread = dequantised(x, random_key(1, device)).to_host<double>();
  double mean_share = 0;
  for (int k = 0; k < 256; ++k) {
    const double at = (spread[static_cast<std::size_t>(k)] + 1) * 128 - k;
    CHECK(at > -1e-9);
    CHECK(at < 1 + 1e-9);
    mean_share += at / 256;
  }
  CHECK(mean_share == Approx(0.5).margin(6 * std::sqrt(1.0 / 12 / 256)));
}

TEST_CASE("likelihoods that there can't be are refused", "[likelihood]") {
  const LikelihoodCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  ProbabilityFlowOptions options;
  options.most_tries = 2;
  CHECK_THAT(message_of([&] { ProbabilityFlow(exact, options)(c.x); }), has_text("after 2 tries"));
  options.probes = -1;
  CHECK_THROWS_AS(ProbabilityFlow(exact, options), Error);
  const Predictor ends{exact.network, Path::edm(), Prediction::end_point};
  CHECK_THAT(message_of([&] { ProbabilityFlow{ends}; }), has_text("end points"));
  CHECK_THROWS_AS(log_likelihood(exact, c.x, 0), Error);
  CHECK_THROWS_AS(log_likelihood(exact, Tensor(), 3), ShapeError);
}
