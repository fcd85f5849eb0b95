// Samplers against Gaussians whose flow is known in closed form, in f64.
#include <cmath>
#include <limits>

#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/exact/gaussian_mixture.h"
#include "models/samplers/runge_kutta.h"
#include "models/samplers/sampler.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/worst.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const std::vector<double> known_mean{0.3, -0.7}, known_covariance{0.5, 0.2, 0.2, 0.3};

struct SolverCase {
  Device device = cpu({.threads = 1});
  Gaussian gaussian{known_mean, known_covariance, device};
  GaussianMixture mixture{
      {isotropic(1, {1, 1}, 0.2), {.weight = 2, .mean = {-1, 0}, .covariance = known_covariance}},
      device};
  Tensor noise = normal(random_key(5, device), {16, 2}, DType::f64);

  Tensor time(double t) const { return full({}, t, DType::f64, device); }
};

double distance(const Tensor& a, const Tensor& b) { return max(abs(a - b)).item<double>(); }

// Root mean square distance over all numbers.
double rms(const Tensor& a, const Tensor& b) {
  return std::sqrt(mean(square(a - b)).item<double>());
}

// The error at the grid point `from_end` places before the last, against what dopri5 makes of the
// first state there with a tolerance far below.
struct EndError {
  double error;
  std::size_t traces;
};
EndError end_error(const SolverCase& c, const SamplerOptions& options, const Path& path,
                   std::size_t from_end) {
  const Predictor exact = c.mixture.predictor(Prediction::velocity, path);
  const Solver solver(exact, options);
  std::vector<Tensor> states;
  solver.run({.noise = c.noise, .visit = [&](const Tensor& z) { states.push_back(z); }});
  const std::size_t at = states.size() - 1 - from_end;
  const Slope slope = [&](const Tensor& z, const Tensor& t) {
    return exact(Prediction::velocity, z, t);
  };
  const AdaptiveOptions control{1e-12, 1e-12, false};
  const Tensor to = c.time(solver.grid()[at].t);
  AdaptiveState state =
      adaptive_start(slope, states.front(), c.time(solver.grid().front().t), to, control);
  const auto step = compile(std::function(
      [&](const AdaptiveState& now) { return adaptive_step(slope, now, to, control); }));
  for (int tries = 0; max(abs(state.t - to)).item<double>() > 0; ++tries) {
    REQUIRE(tries < 3000);
    state = step(state);
  }
  return {rms(states[at], state.y), solver.traces()};
}

// Mean and covariance of samples [n, 2] against the Gaussian's, in standard errors.
double worst_moment(const std::vector<float>& samples) {
  const auto n = static_cast<double>(samples.size()) / 2;
  double worst = 0;
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      const double vi = known_covariance[3 * i], vj = known_covariance[3 * j],
                   vij = known_covariance[2 * i + j];
      double product = 0, first = 0;
      for (std::size_t k = 0; k < samples.size(); k += 2) {
        product += (samples[k + i] - known_mean[i]) * (samples[k + j] - known_mean[j]);
        first += samples[k + i] - known_mean[i];
      }
      worst = testing::worse_of(worst,
                                std::abs(product / n - vij) / std::sqrt((vi * vj + vij * vij) / n));
      worst = testing::worse_of(worst, std::abs(first / n) / std::sqrt(vi / n));
    }
  return worst;
}

}  // namespace

TEST_CASE(
    "solvers have their orders on a Gaussian: Euler and DDIM 1, midpoint, Heun, EDM and "
    "DPM-Solver++ 2, RK4 4",
    "[samplers]") {
  const SolverCase c;
  struct Row {
    SamplerKind kind;
    Path path;
    double order;
    std::int64_t steps;
    std::size_t from_end;  // 1: the last step, to no noise, is of first order
  };
  for (const Row& row : {Row{SamplerKind::ode_euler, Path::linear(), 1, 64, 0},
                         Row{SamplerKind::ddim, Path::linear(), 1, 64, 0},
                         Row{SamplerKind::ddim, Path::vp(), 1, 128, 1},
                         Row{SamplerKind::ode_midpoint, Path::linear(), 2, 64, 0},
                         Row{SamplerKind::ode_heun, Path::linear(), 2, 64, 0},
                         Row{SamplerKind::ode_rk4, Path::linear(), 4, 40, 0},
                         Row{SamplerKind::ode_rk4, Path::trig(), 4, 40, 0},
                         Row{SamplerKind::edm, Path::edm(), 2, 65, 1},
                         Row{SamplerKind::dpm_solver, Path::vp(), 2, 65, 1},
                         Row{SamplerKind::dpm_solver, Path::linear(), 2, 65, 1}}) {
    INFO(to_string(row.kind) << " on " << to_string(row.path.kind));
    SamplerOptions options{.kind = row.kind, .steps = row.steps};
    options.sigma_min = 0.05, options.sigma_max = 20;
    const EndError coarse = end_error(c, options, row.path, row.from_end);
    options.steps = row.from_end == 1 ? 2 * row.steps - 1 : 2 * row.steps;
    const EndError fine = end_error(c, options, row.path, row.from_end);
    CHECK(std::log2(coarse.error / fine.error) == Approx(row.order).margin(0.2));
    CHECK(fine.error > 1e-13);
    CHECK(fine.traces <= 2);
  }
}

TEST_CASE("a step of dopri5 has order 5, and error control keeps its tolerance", "[samplers]") {
  const SolverCase c;
  const Path path = Path::linear();
  const Predictor exact = c.gaussian.predictor(Prediction::velocity, path);
  const Slope slope = [&](const Tensor& z, const Tensor& t) {
    return exact(Prediction::velocity, z, t);
  };
  const auto error = [&](int steps) {
    Tensor z = c.noise;
    const double h = -1.0 / steps;
    for (int i = 0; i < steps; ++i)
      z = runge_kutta_step(dopri5_tableau(), slope, z, c.time(1 + h * i), c.time(h));
    return rms(z, c.gaussian.flow_map(path, c.noise, c.time(1), c.time(0)));
  };
  CHECK(std::log2(error(16) / error(32)) == Approx(5).margin(0.35));
  CHECK(error(16) < 1e-4);

  double before = 1;
  for (const double tolerance : {1e-3, 1e-6, 1e-9}) {
    for (const bool per_sample : {true, false}) {
      SamplerOptions options{.kind = SamplerKind::ode_dopri5, .steps = 1000};
      options.relative_tolerance = options.absolute_tolerance = tolerance;
      options.per_sample_error = per_sample;
      const Solver solver(exact, options);
      const Tensor z = solver.run({.noise = c.noise});
      const double worst = distance(z, c.gaussian.flow_map(path, c.noise, c.time(1), c.time(0)));
      CAPTURE(tolerance, per_sample, worst, solver.evaluations());
      CHECK(worst < 100 * tolerance);
      CHECK(worst < before);
      CHECK(solver.evaluations() >= 2 + 6 * 3);
      CHECK(solver.evaluations() < 700);
      CHECK(solver.traces() == 1);
      if (!per_sample) before = worst;
    }
  }
}

TEST_CASE("dopri5 says where the flow is between its steps", "[samplers]") {
  const SolverCase c;
  const Path path = Path::linear();
  const Predictor exact = c.gaussian.predictor(Prediction::velocity, path);
  const Slope slope = [&](const Tensor& z, const Tensor& t) {
    return exact(Prediction::velocity, z, t);
  };
  // Within one step: of order 4, one more than its error there, and the ends themselves.
  const auto off = [&](double h, double theta) {
    const Tensor t = broadcast_to(c.time(0.75), {16});
    const AdaptiveState state{.y = c.noise,
                              .t = t,
                              .h = broadcast_to(c.time(-h), {16}),
                              .slope = slope(c.noise, t),
                              .rejected = lt(t, t)};
    DenseOutput dense{.times = {0.75 - theta * h},
                      .states = zeros({1, 16, 2}, DType::f64, c.device)};
    const AdaptiveOptions loose{1e3, 1e3, true};
    const AdaptiveState next = adaptive_step(slope, state, c.time(0), loose, &dense);
    if (theta == 1) CHECK(distance(reshape(dense.states, {16, 2}), next.y) < 1e-13);
    return rms(reshape(dense.states, {16, 2}),
               c.gaussian.flow_map(path, c.noise, c.time(0.75), c.time(0.75 - theta * h)));
  };
  for (const double theta : {0.2, 0.5, 0.9}) {
    INFO(theta);
    CHECK(std::log2(off(0.0625, theta) / off(0.03125, theta)) > 4.6);
    CHECK(off(0.03125, theta) > 1e-13);
  }
  CHECK(off(0.125, 1) < 1e-5);

  // In single precision a step may end on a time while its share of the step rounds above 1, and
  // the next begins there.
  const auto f32 = [&](float value) {
    return Tensor::from(std::vector<float>{value}, {1}, c.device);
  };
  const float t = 0.8910953f, h = -0.19190906f, end = t + h;
  const Slope constant = [](const Tensor& z, const Tensor&) { return ones_like(z); };
  const Tensor y = reshape(f32(5), {1, 1});
  DenseOutput dense{.times = {static_cast<double>(end)},
                    .states = zeros({1, 1, 1}, DType::f32, c.device)};
  AdaptiveState state{
      .y = y, .t = f32(t), .h = f32(h), .slope = ones_like(y), .rejected = lt(f32(0), f32(0))};
  for (int step = 0; step < 2; ++step)
    state = adaptive_step(constant, state, reshape(f32(0), {}), {}, &dense);
  CHECK(dense.states.item<float>() == Approx(5 + h));

  // On the way: visits see even times, and each sample is where its flow is then.
  for (const bool per_sample : {true, false}) {
    SamplerOptions options{.kind = SamplerKind::ode_dopri5, .steps = 1000};
    options.relative_tolerance = options.absolute_tolerance = 1e-8;
    options.per_sample_error = per_sample;
    options.shown_steps = 10;
    std::vector<Tensor> states;
    const Solver solver(exact, options);
    const Tensor end =
        solver.run({.noise = c.noise, .visit = [&](const Tensor& z) { states.push_back(z); }});
    REQUIRE(states.size() == 11);
    CHECK(distance(states.front(), c.noise) == 0);
    CHECK(distance(states.back(), end) < 1e-13);
    for (std::size_t i = 0; i <= 10; ++i)
      CHECK(distance(states[i], c.gaussian.flow_map(path, c.noise, c.time(1),
                                                    c.time(1 - 0.1 * static_cast<double>(i)))) <
            1e-6);
    SamplerOptions plain = options;
    plain.shown_steps = 0;
    const Solver other(exact, plain);
    CHECK(other.run({.noise = c.noise}).to_host<double>() == end.to_host<double>());
    CHECK(other.evaluations() == solver.evaluations());
  }
  SamplerOptions euler{.kind = SamplerKind::ode_euler};
  euler.shown_steps = 3;
  CHECK_THROWS_AS(check(euler), Error);
}

TEST_CASE("dopri5 gives up where the flow can't be followed", "[samplers]") {
  const SolverCase c;
  Predictor broken = c.gaussian.predictor(Prediction::velocity, Path::linear());
  const Velocity exact = broken.network;
  broken.network = [&](const Tensor& z, const Times& times, const Tensor& labels) {
    const Tensor velocity = exact(z, times, labels);
    return where(gt(over_samples(broadcast_to(times.t, {z.size(0)}), z.rank()), 0.5), velocity,
                 full_like(velocity, std::numeric_limits<double>::quiet_NaN()));
  };
  const Solver solver(broken, {.kind = SamplerKind::ode_dopri5, .steps = 100'000});
  CHECK_THAT(message_of([&] { solver.run({.noise = c.noise}); }), has_text("can't go on"));
}

TEST_CASE("what a sample of dopri5 costs and becomes does not depend on the others", "[samplers]") {
  const SolverCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  SamplerOptions options{.kind = SamplerKind::ode_dopri5, .steps = 1000};
  const Solver together(exact, options), alone(exact, options);
  const Tensor all = together.run({.noise = c.noise});
  double total = 0;
  for (std::int64_t i = 0; i < 4; ++i) {
    const Solver one(exact, options);
    const Tensor z = one.run({.noise = slice_axis(c.noise, 0, i, i + 1)});
    CHECK(distance(z, slice_axis(all, 0, i, i + 1)) < 1e-12);
    total += one.evaluations();
  }
  const Solver four(exact, options);
  four.run({.noise = slice_axis(c.noise, 0, 0, 4)});
  CHECK(four.evaluations() == Approx(total / 4).epsilon(1e-12));

  options.steps = 2;
  CHECK_THAT(message_of([&] { Solver(exact, options).run({.noise = c.noise}); }),
             has_text("after 2 tries"));
}

TEST_CASE("without eta, DDIM on the linear path is Euler", "[samplers]") {
  const SolverCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  const Tensor euler =
      Solver(exact, {.kind = SamplerKind::ode_euler, .steps = 7}).run({.noise = c.noise});
  const Tensor ddim =
      Solver(exact, {.kind = SamplerKind::ddim, .steps = 7}).run({.noise = c.noise});
  CHECK(distance(euler, ddim) < 1e-12);
}

TEST_CASE("the sampler of rf++ is exact for straight ways, in any number of steps", "[samplers]") {
  // Noise e goes straight to M e: z = ((1 - t) M + t) e, and the data seen are M e all the way.
  const SolverCase c;
  const Tensor scales = Tensor::from(std::vector<double>{0.4, 2.5}, {1, 2}, c.device);
  const Predictor straight{[&](const Tensor& z, const Times& times, const Tensor&) {
                             const Tensor t = expand_dims(times.t, 1);
                             return (1.0 - scales) * z / ((1.0 - t) * scales + t);
                           },
                           Path::linear(), Prediction::velocity};
  for (const std::int64_t steps : {1, 2, 7}) {
    const Solver solver(straight, {.kind = SamplerKind::rectified, .steps = steps});
    CHECK(distance(solver.run({.noise = c.noise}), scales * c.noise) < 1e-12);
    CHECK(solver.evaluations() == static_cast<double>(steps));
  }
  // Of a flow that bends, two steps are Euler's, three are not.
  const Predictor bent = c.mixture.predictor(Prediction::velocity, Path::linear());
  const auto ended = [&](SamplerKind kind, std::int64_t steps) {
    return Solver(bent, {.kind = kind, .steps = steps}).run({.noise = c.noise});
  };
  for (const std::int64_t steps : {1, 2})
    CHECK(distance(ended(SamplerKind::rectified, steps), ended(SamplerKind::ode_euler, steps)) <
          1e-12);
  CHECK(distance(ended(SamplerKind::rectified, 3), ended(SamplerKind::ode_euler, 3)) > 1e-3);
}

TEST_CASE("any prediction on any path is sampled by any sampler", "[samplers]") {
  const SolverCase c;
  for (const Path& path : {Path::linear(), Path::trig(), Path::vp(), Path::sub_vp(), Path::ve(),
                           Path::edm(), Path::trigflow()})
    for (const Prediction prediction : {Prediction::velocity, Prediction::noise, Prediction::data,
                                        Prediction::score, Prediction::v, Prediction::F})
      for (const SamplerKind kind :
           {SamplerKind::ode_heun, SamplerKind::ode_rk4, SamplerKind::edm, SamplerKind::ddim,
            SamplerKind::dpm_solver, SamplerKind::ode_dopri5}) {
        // Even steps in time are no grid for these.
        if (kind == SamplerKind::ode_dopri5 && path.kind == PathKind::edm) continue;
        INFO(to_string(kind) << ", " << to_string(prediction) << " on " << to_string(path.kind));
        SamplerOptions options{.kind = kind, .steps = kind == SamplerKind::ddim ? 300 : 100};
        if (kind == SamplerKind::ode_dopri5) options.steps = 1000;
        const Predictor exact = c.gaussian.predictor(prediction, path);
        const Solver solver(exact, options);
        const Tensor z = solver.run({.noise = c.noise});
        // The flow from where the sampler began to the least noise.
        const GridPoint first = solver.grid().front();
        const double began = path.time_of(PathNumbers{first.alpha, first.sigma, 0, 0});
        const Tensor start = c.noise * first.sigma * (path.at(began).sigma / first.sigma);
        const Tensor want =
            c.gaussian.flow_map(path, start, c.time(began), c.time(path.clean_time()));
        CHECK(distance(z, want) < 0.04);
      }
}

TEST_CASE("stochastic samplers keep the Gaussian's mean and covariance", "[samplers]") {
  const SolverCase c;
  struct Row {
    SamplerKind kind;
    Path path;
    std::int64_t steps;
    double eta = 1, churn = 0;
    bool measured = false;
  };
  for (const Row& row :
       {Row{SamplerKind::ddim, Path::linear(), 200}, Row{SamplerKind::ddim, Path::vp(), 200, 0.5},
        Row{SamplerKind::sde, Path::linear(), 120}, Row{SamplerKind::sde, Path::vp(), 200},
        Row{SamplerKind::sde, Path::sub_vp(), 200}, Row{SamplerKind::sde, Path::trig(), 100, 0.5},
        Row{SamplerKind::predictor_corrector, Path::linear(), 150},
        Row{SamplerKind::predictor_corrector, Path::vp(), 150},
        Row{SamplerKind::predictor_corrector, Path::ve(), 150, 1, 0, true},
        Row{SamplerKind::edm, Path::linear(), 32, 1, 10},
        Row{SamplerKind::edm, Path::edm(), 32, 1, 10},
        Row{SamplerKind::consistency, Path::linear(), 3},
        Row{SamplerKind::consistency, Path::edm(), 3}}) {
    INFO(to_string(row.kind) << " on " << to_string(row.path.kind) << ", eta " << row.eta);
    SamplerOptions options{.kind = row.kind, .steps = row.steps};
    options.churn = row.churn;
    options.measured_norms = row.measured;
    if (row.kind == SamplerKind::ddim || row.kind == SamplerKind::sde) options.eta = row.eta;
    const Prediction prediction =
        row.kind == SamplerKind::consistency ? Prediction::end_point : Prediction::velocity;
    const Sampler sampler(c.gaussian.predictor(prediction, row.path), {2}, 0, DType::f64, c.device,
                          options);
    // Mean and covariance are five numbers: 4.5 standard errors are exceeded once in 30,000 times.
    CHECK(worst_moment(sampler.sample(2560, 2560, 11)) < 4.5);
    CHECK(sampler.traces() <= 2);
  }
}

TEST_CASE("where all data are one point, samples are that point", "[samplers]") {
  const SolverCase c;
  struct Row {
    SamplerKind kind;
    Path path;
  };
  for (const Row& row :
       {Row{SamplerKind::sde, Path::linear()}, Row{SamplerKind::sde, Path::vp()},
        Row{SamplerKind::ode_euler, Path::linear()}, Row{SamplerKind::ode_euler, Path::vp()},
        Row{SamplerKind::ode_euler, Path::sub_vp()}, Row{SamplerKind::ode_midpoint, Path::vp()},
        Row{SamplerKind::ode_heun, Path::vp()}, Row{SamplerKind::ode_rk4, Path::sub_vp()},
        Row{SamplerKind::ddim, Path::vp()}, Row{SamplerKind::dpm_solver, Path::vp()}}) {
    INFO(to_string(row.kind) << " on " << to_string(row.path.kind));
    const Predictor point{
        .network = [](const Tensor& z, const Times&, const Tensor&) { return full_like(z, 0.75); },
        .path = row.path,
        .prediction = Prediction::data};
    for (const std::int64_t steps : {10, 50}) {
      const Sampler sampler(point, {2}, 0, DType::f64, c.device,
                            {.kind = row.kind, .steps = steps});
      for (const float value : sampler.sample(8, 8, 1)) CHECK(value == Approx(0.75f).margin(1e-6));
    }
  }
}

TEST_CASE("rows that nobody asked for do not change the others", "[samplers]") {
  const SolverCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::vp());
  SamplerOptions corrected{.kind = SamplerKind::predictor_corrector, .steps = 20};
  corrected.measured_norms = true;
  SamplerOptions together{.kind = SamplerKind::ode_dopri5, .steps = 1000};
  together.per_sample_error = false;
  for (const SamplerOptions& options : {corrected, together}) {
    const Sampler sampler(exact, {2}, 0, DType::f64, c.device, options);
    const std::vector<float> full = sampler.sample(64, 32, 3), cut = sampler.sample(33, 32, 3);
    CHECK(std::equal(cut.begin(), cut.end(), full.begin()));
  }
}

TEST_CASE("a model of velocities is never asked for an average", "[samplers]") {
  const SolverCase c;
  const Velocity exact = c.mixture.network(Prediction::velocity, Path::linear());
  const Predictor velocities{.network =
                                 [&](const Tensor& z, const Times& times, const Tensor& labels) {
                                   // It has never seen two times.
                                   const Tensor off = 1e3 * abs(times.t - times.r);
                                   return exact(z, times, labels) + expand_dims(off, -1);
                                 },
                             .path = Path::linear(),
                             .prediction = Prediction::velocity};
  const auto samples = [&](SamplerKind kind) {
    return Solver(velocities, {.kind = kind, .steps = 4}).run({.noise = c.noise});
  };
  CHECK(distance(samples(SamplerKind::meanflow), samples(SamplerKind::ode_euler)) < 1e-12);
}

TEST_CASE("a stochastic sample depends on the seed and its number alone", "[samplers]") {
  const SolverCase c;
  for (const SamplerKind kind :
       {SamplerKind::sde, SamplerKind::predictor_corrector, SamplerKind::edm}) {
    SamplerOptions options{.kind = kind, .steps = 5};
    options.churn = 10;
    const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
    const Sampler sampler(exact, {2}, 0, DType::f64, c.device, options);
    const std::vector<float> all = sampler.sample(200, 200, 3), parts = sampler.sample(150, 33, 3);
    for (std::size_t i = 0; i < parts.size(); ++i) CHECK(parts[i] == Approx(all[i]).margin(1e-6));
    CHECK(sampler.sample(4, 4, 4) != std::vector<float>(all.begin(), all.begin() + 8));
    // The noise of a step is new in every step and every sample.
    CHECK(all[0] != all[2]);
  }
}

TEST_CASE("without a key, a sampler draws as for samples 0, 1, .. of seed 0", "[samplers]") {
  const SolverCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  for (const SamplerKind kind : {SamplerKind::ddim, SamplerKind::sde}) {
    SamplerOptions options{.kind = kind, .steps = 4};
    options.eta = 1;
    const Sampler sampler(exact, {2}, 0, DType::f64, c.device, options);
    std::vector<float> start(6);
    SampleNoise({2}, DType::f64, c.device).draw(noise_keys(0, c.device).of_start, 0, 3, start);
    const std::vector<double> drawn =
        sampler(Tensor::from(start, {3, 2}, c.device).to(DType::f64)).to_host<double>();
    const std::vector<float> wanted = sampler.sample(3, 3, 0);
    for (std::size_t i = 0; i < wanted.size(); ++i)
      CHECK(drawn[i] == Approx(wanted[i]).margin(1e-5));
  }
}

TEST_CASE("an empty batch has no samples and counts no calls", "[samplers]") {
  const SolverCase c;
  const Predictor exact = c.mixture.predictor(Prediction::velocity, Path::linear());
  for (const SamplerKind kind :
       {SamplerKind::ode_euler, SamplerKind::ode_dopri5, SamplerKind::sde, SamplerKind::ddim}) {
    INFO(to_string(kind));
    SamplerOptions options{.kind = kind, .steps = kind == SamplerKind::ode_dopri5 ? 1000 : 4};
    const Solver solver(exact, options);
    const Tensor none = zeros({0, 2}, DType::f64, c.device);
    CHECK(solver.run({.noise = none}).shape() == Shape{0, 2});
    CHECK(solver.evaluations() == 0);
    solver.run({.noise = c.noise});
    CHECK(solver.evaluations() > 0);
    // All states on the way; of error control, which makes no tries, the first.
    const Sampler sampler(exact, {2}, 0, DType::f64, c.device, options);
    const bool tries = kind == SamplerKind::ode_dopri5;
    const Shape states = sampler.path(none).shape();
    CHECK(states == Shape{tries ? 1 : std::ssize(sampler.grid()), 0, 2});
    if (!tries) CHECK(states[0] == sampler.path(c.noise).size(0));
  }
  SamplerOptions even{.kind = SamplerKind::ode_dopri5, .steps = 1000};
  even.shown_steps = 10;
  const Sampler sampler(exact, {2}, 0, DType::f64, c.device, even);
  CHECK(sampler.path(zeros({0, 2}, DType::f64, c.device)).shape() == Shape{11, 0, 2});
}

TEST_CASE("evaluations are the calls of the network", "[samplers]") {
  const SolverCase c;
  std::int64_t rows = 0;
  const Predictor counted{.network =
                              [&](const Tensor& z, const Times& times, const Tensor&) {
                                ++rows;
                                return c.mixture.network(Prediction::velocity, Path::linear())(
                                    z, times, {});
                              },
                          .path = Path::linear(),
                          .prediction = Prediction::average_velocity};
  struct Row {
    SamplerKind kind;
    double calls;
    int traced;  // how often the network was called in traces: not more for more steps
  };
  for (const Row& row : {Row{SamplerKind::meanflow, 6, 1}, Row{SamplerKind::ode_euler, 6, 1},
                         Row{SamplerKind::ode_midpoint, 12, 2}, Row{SamplerKind::ode_heun, 12, 2},
                         Row{SamplerKind::ode_rk4, 24, 4}, Row{SamplerKind::ddim, 6, 1},
                         Row{SamplerKind::dpm_solver, 6, 1}, Row{SamplerKind::sde, 6, 2},
                         Row{SamplerKind::edm, 11, 3}, Row{SamplerKind::predictor_corrector, 18, 3},
                         Row{SamplerKind::consistency, 6, 1}}) {
    INFO(to_string(row.kind));
    rows = 0;
    SamplerOptions options{.kind = row.kind, .steps = 6};
    options.corrections = 2;
    const Solver solver(counted, options);
    CHECK(solver.evaluations() == 0);
    solver.run({.noise = c.noise});
    solver.run({.noise = c.noise});
    CHECK(solver.evaluations() == row.calls);
    CHECK(rows == row.traced);
  }
  SamplerOptions guidance{.kind = SamplerKind::ode_heun, .steps = 6, .guidance = 2};
  const Solver solver(counted, guidance, 10);
  solver.run({.noise = c.noise, .labels = full({16}, 3, DType::i32, c.device)});
  CHECK(solver.evaluations() == 24);
}

TEST_CASE("guidance holds inside its interval alone", "[samplers]") {
  const SolverCase c;
  const Velocity labelled = [](const Tensor& z, const Times&, const Tensor& labels) {
    return zeros_like(z) + expand_dims(labels.to(z.dtype()), 1);
  };
  const Tensor t = Tensor::from(std::vector<double>{0.1, 0.2, 0.5, 0.8}, {4}, c.device);
  const Tensor labels = full({4}, 1, DType::i32, c.device);
  const Tensor v = guided(labelled, 3, 0, 0.2, 0.5)(zeros({4, 1}, DType::f64, c.device),
                                                    {.t = t, .r = t}, labels);
  CHECK(v.to_host<double>() == std::vector<double>{1, 3, 3, 1});
}

TEST_CASE("Karras levels are those of the paper, and grids end where they say", "[samplers]") {
  const std::vector<double> levels = karras_levels(18, 0.002, 80, 7);
  REQUIRE(levels.size() == 18);
  CHECK(levels.front() == Approx(80));
  CHECK(levels.back() == Approx(0.002).epsilon(1e-10));
  CHECK(levels[1] ==
        Approx(std::pow(
            std::pow(80, 1.0 / 7) + (std::pow(0.002, 1.0 / 7) - std::pow(80, 1.0 / 7)) / 17, 7)));
  CHECK(levels[1] == Approx(57.586).epsilon(1e-4));
  SamplerOptions options{.kind = SamplerKind::ode_euler, .steps = 4};
  const auto times = [&](bool to_data) {
    std::vector<double> result;
    for (const GridPoint& each : time_grid(options, options.path, to_data))
      result.push_back(each.t);
    return result;
  };
  CHECK(times(true) == std::vector<double>{1, 0.75, 0.5, 0.25, 0});
  options.shift = 3;
  CHECK(times(true)[2] == Approx(3 * 0.5 / 2));
  options.shift = 1, options.prediction = Prediction::noise;
  CHECK(times(true).front() == Approx(1000.0 / 1001));
  options.prediction = Prediction::data;
  CHECK(times(false).back() == Approx(1.0 / 1001));
  options.path = Path::vp(), options.shift = 2;
  CHECK_THAT(message_of([&] { time_grid(options, options.path, true); }), has_text("shift"));
}

TEST_CASE("samplers refuse settings and networks in one line", "[samplers]") {
  const auto refusal = [](SamplerOptions options) { return message_of([&] { check(options); }); };
  SamplerOptions options;
  options.kind = SamplerKind::ddim, options.eta = 1.5;
  CHECK_THAT(refusal(options), has_text("eta of ddim"));
  options = {.kind = SamplerKind::consistency};
  options.prediction = Prediction::noise;
  CHECK_THAT(refusal(options), has_text("predicts noise"));
  options = {.kind = SamplerKind::meanflow};
  options.prediction = Prediction::data;
  CHECK_THAT(refusal(options), has_text("average velocity"));
  options = {.kind = SamplerKind::edm};
  options.prediction = Prediction::end_point;
  CHECK_THAT(refusal(options), has_text("consistency"));
  options = {};
  options.sigma_min = 90;
  CHECK_THAT(refusal(options), has_text("sigma_min < sigma_max"));
  options = {};
  options.churn = -1;
  CHECK_THAT(refusal(options), has_text("churn"));
  for (const std::string& name : sampler_names()) CHECK(to_string(sampler_kind_from(name)) == name);
  CHECK_THROWS_AS(grid_kind_from("x"), FormatError);
}
