// Likelihoods along the probability flow against densities in closed form, in f64.
#include <cmath>
#include <limits>
#include <numbers>

#include "autograd/divergence.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/exact/gaussian_mixture.h"
#include "models/likelihood/elbo.h"
#include "models/likelihood/probability_flow.h"
#include "models/objectives/likelihood.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/worst.h"

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

TEST_CASE("a flow of one rate has the likelihood and the gradient of its closed form",
          "[likelihood]") {
  // v = a z takes x to e^a x: log p = log N(e^a x; 0, I) + 2 a, d log p / da = 2 - e^2a |x|^2.
  const LikelihoodCase c;
  const double a = 0.7, scale = std::exp(2 * a);
  const Parameters rate{{"a", Tensor::from(std::vector<double>{a}, {}, c.device)}};
  const auto bind = [](const Parameters& p) {
    return Predictor{
        [rate = p.at("a")](const Tensor& z, const Times&, const Tensor&) { return rate * z; },
        Path::linear(), Prediction::velocity};
  };
  const Tensor squares = sum(square(c.x), {1}),
               want = -0.5 * scale * squares - std::log(2 * std::numbers::pi) + 2 * a;
  const double slope = 2 * 24 - scale * sum(squares).item<double>();
  const FollowOptions how{.steps = 40};
  const auto total = [&](const Parameters& p) { return sum(follow_flow(bind(p), c.x, how).log_p); };
  const auto total_by_adjoint = [&](const Parameters& p) {
    return sum(follow_flow_by_adjoint(bind, p, c.x, how).log_p);
  };
  CHECK(nats_off(follow_flow(bind(rate), c.x, how).log_p, want, 2) < 1e-6);
  CHECK(nats_off(follow_flow_by_adjoint(bind, rate, c.x, how).log_p, want, 2) < 1e-6);
  // int |a z|^2 dt = a (e^2a - 1) |x|^2 / 2, and the Jacobian is a I.
  FollowOptions costly = how;
  costly.costs = true;
  const Tensor energy = 0.5 * a * (scale - 1) * squares;
  for (const FollowedFlow& flow :
       {follow_flow(bind(rate), c.x, costly), follow_flow_by_adjoint(bind, rate, c.x, costly)}) {
    CHECK(nats_off(flow.log_p, want, 2) < 1e-6);
    CHECK(nats_off(flow.kinetic_energy, energy, 2) < 1e-6);
    CHECK(nats_off(flow.jacobian_norm, full({24}, 2 * a * a, DType::f64, c.device), 2) < 1e-9);
  }
  CHECK(grad(total)(rate).at("a").item<double>() == Approx(slope).epsilon(1e-6));
  CHECK(grad(total_by_adjoint)(rate).at("a").item<double>() == Approx(slope).epsilon(1e-6));
}

TEST_CASE("gradients through the steps of a flow and by the adjoint equation meet as h^4",
          "[likelihood]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network = MlpConfig{.data_dim = 3, .hidden = {7, 5}};
  const Parameters parameters = initialise(network, random_key(1, device), DType::f64);
  const Tensor x = normal(random_key(2, device), {4, 3}, DType::f64);
  const auto bind = [&](const Parameters& p) {
    return Predictor{bind_parameters(network, p), Path::linear(), Prediction::velocity};
  };
  for (const bool exact : {true, false}) {
    INFO((exact ? "exact" : "probes"));
    std::vector<double> off;
    for (const std::int64_t steps : {3, 6, 12}) {
      FollowOptions how{.steps = steps};
      if (!exact) how.probes = rademacher_probes(random_key(3, device), x, 2);
      const auto through = [&](const Parameters& p, const Tensor& at) {
        return sum(follow_flow(bind(p), at, how).log_p);
      };
      const auto adjoint = [&](const Parameters& p, const Tensor& at) {
        return sum(follow_flow_by_adjoint(bind, p, at, how).log_p);
      };
      CHECK(adjoint(parameters, x).item<double>() ==
            Approx(through(parameters, x).item<double>()).epsilon(1e-13));
      const std::vector<Tensor> kept = leaves(grad(through)(parameters, x)),
                                back = leaves(grad(adjoint)(parameters, x));
      const Tensor at_x = grad<1>(through)(parameters, x),
                   back_at_x = grad<1>(adjoint)(parameters, x);
      how.recompute = true;
      const std::vector<Tensor> again = leaves(grad(through)(parameters, x));
      double largest = 0, worst = max(abs(at_x - back_at_x)).item<double>();
      for (std::size_t i = 0; i < kept.size(); ++i) {
        largest = std::max(largest, max(abs(kept[i])).item<double>());
        worst = worse_of(worst, max(abs(kept[i] - back[i])).item<double>());
        CHECK(max(abs(kept[i] - again[i])).item<double>() < 1e-12);
      }
      CHECK(largest > 0.1);
      off.push_back(worst);
    }
    INFO(off[0] << " " << off[1] << " " << off[2]);
    CHECK(off[2] < 1e-4);
    // A half of the step, a sixteenth of the error, about.
    CHECK(off[1] < off[0] / 8);
    CHECK(off[2] < off[1] / 8);
  }
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

TEST_CASE("Hutch++ is exact where its sketch has the rank of the Jacobian", "[likelihood]") {
  const LikelihoodCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  ProbabilityFlowOptions options{.probes = 2, .sketched = true};
  const Tensor few = slice_axis(c.x, 0, 0, 6), want = ProbabilityFlow(exact)(few).log_p;
  // Two random vectors span the plane.
  CHECK(nats_off(ProbabilityFlow(exact, options)(few, {}, random_key(1, c.device)).log_p, want, 2) <
        1e-3);
  // One probe and a sketch of one: right in the mean.
  options.probes = 1;
  const ProbabilityFlow flow(exact, options);
  std::vector<double> means;
  for (std::uint64_t seed = 0; seed < 24; ++seed)
    means.push_back(mean(flow(few, {}, random_key(seed, c.device)).log_p - want).item<double>());
  double average = 0, squares = 0;
  for (const double each : means) average += each / 24;
  for (const double each : means) squares += (each - average) * (each - average) / 23;
  CHECK(std::abs(average) < 4.5 * std::sqrt(squares / 24) + 1e-3);
  options.probes = 0;
  CHECK_THROWS_AS(ProbabilityFlow(exact, options), Error);
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

TEST_CASE("the bound of the best denoiser is the likelihood under a little noise", "[likelihood]") {
  const LikelihoodCase c;
  const Tensor x = c.mixture.samples(random_key(4, c.device), 2000);
  struct Case {
    Path path;
    Prediction prediction;
    double least;
  };
  for (const Case& each :
       {Case{Path::linear(), Prediction::velocity, 0.05},
        Case{Path::linear(), Prediction::noise, 0.2}, Case{Path::vp(), Prediction::score, 0.05},
        Case{Path::edm(), Prediction::F, 0.05}}) {
    INFO(to_string(each.path.kind) << ", " << to_string(each.prediction) << ", " << each.least);
    const Predictor exact = c.mixture.predictor(each.prediction, each.path);
    const Tensor bound = elbo(exact, x, random_key(5, c.device),
                              {.levels = 64, .least_noise = each.least, .data_variance = 2});
    // E log p_s(x + s e), by noise of its own.
    Tensor want = zeros({2000}, DType::f64, c.device);
    const PathPoint noisy{full({}, 1, DType::f64, c.device),
                          full({}, each.least, DType::f64, c.device),
                          full({}, 0, DType::f64, c.device), full({}, 0, DType::f64, c.device)};
    for (std::uint32_t k = 0; k < 8; ++k) {
      const Tensor e = normal(random_key(100 + k, c.device), x.shape(), DType::f64);
      want = want + c.mixture.log_density(x + each.least * e, noisy) / 8.0;
    }
    const Tensor off = bound - want;
    const double error = std::sqrt(mean(square(off - mean(off))).item<double>() / 2000);
    INFO("off by " << mean(off).item<double>() << " +- " << error);
    CHECK(std::abs(mean(off).item<double>()) < 4.5 * error);
    CHECK(error < 0.05);
    // A guess of the variance changes the spread alone; a worse denoiser has a lower bound.
    const Tensor other = elbo(exact, x, random_key(6, c.device),
                              {.levels = 64, .least_noise = each.least, .data_variance = 0.1});
    CHECK(mean(other - bound).item<double>() == Approx(0).margin(0.3));
  }
  const GaussianMixture wrong({isotropic(1, {0, 0}, 1)}, c.device);
  const auto bound_of = [&](const GaussianMixture& mixture) {
    return mean(elbo(mixture.predictor(Prediction::velocity, Path::linear()), x,
                     random_key(7, c.device), {.least_noise = 0.05}))
        .item<double>();
  };
  CHECK(bound_of(wrong) < bound_of(c.mixture) - 0.5);
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  CHECK_THROWS_AS(elbo(exact, x, random_key(1, c.device), {.levels = 0}), Error);
  CHECK_THROWS_AS(elbo(exact, x, random_key(1, c.device), {.least_noise = 2000}), Error);
  CHECK_THROWS_AS(elbo(exact, Tensor(), random_key(1, c.device)), ShapeError);
  const Predictor ends{exact.network, Path::edm(), Prediction::end_point};
  CHECK_THAT(message_of([&] { elbo(ends, x, random_key(1, c.device)); }), has_text("no denoiser"));
}

TEST_CASE("likelihoods that there can't be are refused", "[likelihood]") {
  const LikelihoodCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  ProbabilityFlowOptions options;
  options.most_tries = 2;
  CHECK_THAT(message_of([&] { ProbabilityFlow(exact, options)(c.x); }), has_text("after 2 tries"));
  // Where the field is not finite, from the start or from a time on, 10,000 tries are no help.
  for (const double last : {0.0, 0.5}) {
    Predictor broken = exact;
    broken.network = [&, last](const Tensor& z, const Times& times, const Tensor& labels) {
      const Tensor velocity = exact.network(z, times, labels);
      return where(lt(over_samples(broadcast_to(times.t, {z.size(0)}), z.rank()), last), velocity,
                   full_like(velocity, std::numeric_limits<double>::quiet_NaN()));
    };
    CHECK_THAT(message_of([&] { ProbabilityFlow{broken}(c.x); }), has_text("can't go on"));
  }
  options.probes = -1;
  CHECK_THROWS_AS(ProbabilityFlow(exact, options), Error);
  const Predictor ends{exact.network, Path::edm(), Prediction::end_point};
  CHECK_THAT(message_of([&] { ProbabilityFlow{ends}; }), has_text("end points"));
  CHECK_THROWS_AS(log_likelihood(exact, c.x, 0), Error);
  CHECK_THROWS_AS(log_likelihood(exact, Tensor(), 3), ShapeError);
}
