// The losses of methods that have several, or that no oracle computes, on networks for which they
// can be written down.
#include <cmath>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/methods/flow_options.h"
#include "models/methods/score_levels.h"
#include "models/training/trainer.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

constexpr std::int64_t loss_rows = 6, loss_elements = 3;

// A batch of points, for a network that multiplies them by `a`.
struct LinearCase {
  Device device = cpu({.threads = 1});
  NetworkConfig network = MlpConfig{.data_dim = loss_elements, .hidden = {4}};
  MethodConfig method;
  Tensor a = Tensor::from(std::vector<double>{-0.7}, {}, device);
  Parameters none;
  MethodState state;

  explicit LinearCase(const std::string& name, const GivenOptions& given = {})
      : method(configure(name, given, SampleKind::points)) {}

  LossArguments arguments() const {
    const Velocity linear = [a = a](const Tensor& z, const Times&, const Tensor&) { return a * z; };
    return {.use = {network, method.options, 0},
            .velocity = linear,
            .parameters = none,
            .learned = none,
            .state = state,
            .bind = {},
            .bind_trained = {},
            .x = normal(random_key(1, device), {loss_rows, loss_elements}, DType::f64),
            .labels = {},
            .noise = {},
            .key = random_key(2, device),
            .step = {}};
  }
  double loss() const { return method.method->loss(arguments()).loss.item<double>(); }
  double error() const { return method.method->loss(arguments()).error.item<double>(); }
};

}  // namespace

TEST_CASE("flow matching measures by each of its distances", "[methods]") {
  const LinearCase plain("flow-matching");
  const LossArguments arguments = plain.arguments();
  const FlowDraws draws = draw(arguments, draw_options(plain.method.options));
  const std::vector<double> d =
      (plain.a * interpolate(draws.x, draws.e, draws.t) - (draws.e - draws.x)).to_host<double>();
  const auto mean_of = [&](const auto& of_sample) {
    double total = 0;
    for (std::int64_t i = 0; i < loss_rows; ++i) {
      double squares = 0;
      for (std::int64_t j = 0; j < loss_elements; ++j)
        squares += std::pow(d[static_cast<std::size_t>(i * loss_elements + j)], 2);
      total += of_sample(squares) / loss_rows;
    }
    return total;
  };
  const double n = loss_elements, squared = mean_of([&](double s) { return s / n; });
  CHECK(plain.loss() == Approx(squared).epsilon(1e-12));
  const auto check = [&](const GivenOptions& given, double want) {
    const LinearCase other("flow-matching", given);
    CHECK(other.loss() == Approx(want).epsilon(1e-9));
    CHECK(other.error() == Approx(squared).epsilon(1e-12));
  };
  check({{"loss", std::string("pseudo-huber")}, {"huber", 0.25}}, mean_of([&](double s) {
          const double c = 0.25 * std::sqrt(n);
          return (std::sqrt(s + c * c) - c) / n;
        }));
  double by_element = 0;
  for (const double each : d) by_element += std::sqrt(each * each + 0.0625) - 0.25;
  check({{"loss", std::string("element-huber")}, {"huber", 0.25}},
        by_element / static_cast<double>(d.size()));
  check({{"loss", std::string("cauchy")}, {"cauchy", 0.5}},
        mean_of([&](double s) { return std::log1p(s / (2 * 0.25 * n)); }));
  check({{"loss", std::string("adaptive")}, {"power", 0.5}, {"weight-offset", 0.01}},
        mean_of([&](double s) { return s / std::sqrt(s + 0.01); }));
}

TEST_CASE("ict compares neighbours of a grid that doubles, over their distance", "[methods]") {
  for (const auto& [step, intervals] : {std::pair(0, 10), {300, 40}, {999, 1280}}) {
    const LinearCase of("ict", {{"loss", std::string("squared")}});
    LossArguments arguments = of.arguments();
    arguments.use.total_steps = 1000;
    arguments.step = Tensor::from(std::vector<std::int32_t>{step}, {}, of.device);
    arguments.noise = normal(random_key(9, of.device), arguments.x.shape(), DType::f64);
    std::vector<std::vector<double>> seen;  // levels of the student, then of the teacher
    const Velocity watched = [&](const Tensor& z, const Times& times, const Tensor&) {
      seen.push_back(exp(4.0 * times.t).to_host<double>());  // it is told ln(sigma) / 4
      return of.a * z;
    };
    arguments.velocity = watched;
    const double loss = of.method.method->loss(arguments).loss.item<double>();
    REQUIRE(seen.size() == 2);
    constexpr double least = 0.002, most = 80, rho = 7;
    const double d = of.method.options.real("sigma-data"), root = std::pow(least, 1 / rho);
    const auto place = [&](double sigma) {
      return (std::pow(sigma, 1 / rho) - root) / (std::pow(most, 1 / rho) - root) * intervals;
    };
    const std::vector<double> x = arguments.x.to_host<double>(),
                              e = arguments.noise.to_host<double>();
    double total = 0;
    for (std::size_t i = 0; i < loss_rows; ++i) {
      const double high = seen[0][i], low = seen[1][i];
      CHECK(place(low) == Approx(std::round(place(low))).margin(1e-6));
      CHECK(place(high) == Approx(place(low) + 1).margin(1e-6));
      double squares = 0;
      for (std::size_t j = 0; j < loss_elements; ++j) {
        const std::size_t at = i * loss_elements + j;
        const auto end = [&](double sigma) {
          const double z = x[at] + sigma * e[at], after = sigma - least;
          return d * d / (after * after + d * d) * z -
                 0.7 * d * after / (sigma * sigma + d * d) * z;
        };
        squares += std::pow(end(high) - end(low), 2);
      }
      total += squares / (high - low) / loss_rows;
    }
    CHECK(loss == Approx(total).epsilon(1e-8));
  }
}

TEST_CASE("noise levels of edm are drawn with their mean and deviation", "[methods]") {
  constexpr std::int64_t rows = 4000;
  const LinearCase of("edm");
  std::vector<double> logs;
  const Velocity watched = [&](const Tensor& z, const Times& times, const Tensor&) {
    logs = (4.0 * times.t).to_host<double>();
    return of.a * z;
  };
  LossArguments arguments = of.arguments();
  arguments.velocity = watched;
  arguments.x = normal(random_key(5, of.device), {rows, loss_elements}, DType::f64);
  of.method.method->loss(arguments);
  REQUIRE(logs.size() == rows);
  double mean = 0, square = 0;
  for (const double value : logs) mean += value / rows;
  for (const double value : logs) square += std::pow(value - mean, 2) / rows;
  // (Cut off at the levels 0.002 and 80, beyond four deviations.)
  CHECK(mean == Approx(-1.2).margin(6 * 1.2 / std::sqrt(rows)));
  CHECK(std::sqrt(square) == Approx(1.2).margin(6 * 1.2 / std::sqrt(2.0 * rows)));
}

TEST_CASE("every distance, density of times and path trains", "[methods]") {
  const std::shared_ptr<const DataSet> data = make_data_set("8gaussians");
  const auto train = [&](const std::string& name, const GivenOptions& given) {
    TrainingConfig config{.network = MlpConfig{.hidden = {16}},
                          .method = configure(name, given, SampleKind::points),
                          .batch = 32};
    if (config.method.method->has_schedule) config.total_steps = 2;
    Trainer trainer(config, data, cpu({.threads = 1}));
    for (int i = 0; i < 2; ++i) {
      const StepMetrics metrics = trainer.step();
      CHECK(std::isfinite(metrics.loss.item<float>()));
      CHECK(std::isfinite(metrics.gradient_norm.item<float>()));
    }
  };
  for (const char* const loss : {"squared", "pseudo-huber", "element-huber", "cauchy", "adaptive"})
    for (const char* const method : {"flow-matching", "ict"}) {
      INFO(method << " " << loss);
      train(method, {{"loss", std::string(loss)}});
    }
  for (const char* const path : {"vp", "sub-vp", "ve"})
    for (const char* const method : {"dsm", "ssm", "rcae", "dae"}) {
      INFO(method << " " << path);
      train(method, {{"path", std::string(path)}});
    }
  for (const char* const times : {"logit-normal", "uniform", "mode", "cosmap", "u-shaped"})
    for (const char* const method : {"flow-matching", "meanflow", "split-meanflow", "imf"}) {
      INFO(method << " " << times);
      train(method, {{"times", std::string(times)}, {"time-shift", 2.0}});
      if (method == std::string("flow-matching") && times != std::string("u-shaped"))
        train(method, {{"times", std::string(times)}, {"time-draws", std::string("stratified")}});
    }
}

TEST_CASE("score matching by derivatives is its formula on a linear score", "[methods]") {
  // sigma s(z) = a z, so that sigma J = a I, whatever the probes are.
  const double a = -0.7, n = loss_elements;
  const auto mean_of = [&](const LinearCase& of, const auto& of_sample) {
    const NoisedBatch batch = noised_batch(of.arguments());
    const std::vector<double> z = batch.z.to_host<double>(), sigma = batch.sigma.to_host<double>();
    double total = 0;
    for (std::size_t i = 0; i < loss_rows; ++i) {
      double squares = 0;
      for (std::size_t j = 0; j < loss_elements; ++j)
        squares += z[i * loss_elements + j] * z[i * loss_elements + j];
      total += of_sample(squares, sigma[i]) / (loss_rows * n);
    }
    return total;
  };
  for (const std::int64_t probes : {1, 5}) {
    const LinearCase sliced("ssm", {{"probes", probes}});
    CHECK(sliced.loss() == Approx(mean_of(sliced, [&](double squares, double sigma) {
                             return sigma * a * n + 0.5 * a * a * squares;
                           })).epsilon(1e-12));
  }
  const LinearCase contracting("rcae", {{"contraction", 0.3}});
  CHECK(contracting.loss() == Approx(mean_of(contracting, [&](double squares, double sigma) {
                                return sigma * a * n + 0.5 * a * a * squares +
                                       0.5 * 0.3 * sigma * sigma * a * a * n;
                              })).epsilon(1e-12));
  // The mean over all 2^3 directions of (v' s)^2 is |s|^2.
  const LinearCase projected("ssm",
                             {{"probes", std::int64_t{256}}, {"norm", std::string("projected")}});
  CHECK(projected.loss() == Approx(mean_of(projected, [&](double squares, double sigma) {
                              return sigma * a * n + 0.5 * a * a * squares;
                            })).margin(0.1));
  CHECK(projected.loss() != LinearCase("ssm", {{"probes", std::int64_t{256}}}).loss());
}

TEST_CASE("a loss that is no scalar is refused by the method's name", "[methods]") {
  const MethodTable table = with_method(
      built_in_methods(), {.name = "by-row", .loss = [](const LossArguments& arguments) {
                             const Tensor error = arguments.velocity(
                                 arguments.x,
                                 {.t = zeros({4}, DType::f32, arguments.x.device()),
                                  .r = zeros({4}, DType::f32, arguments.x.device())},
                                 {});
                             return LossValue{error, sum(error)};
                           }});
  const TrainingConfig config{.network = MlpConfig{.hidden = {4}},
                              .method = configure("by-row", {}, SampleKind::points, table),
                              .batch = 4};
  Trainer trainer(config, make_data_set("moons"), cpu({.threads = 1}));
  CHECK_THAT(message_of([&] { trainer.step(); }), has_text("method by-row: its loss is f32[4, 2]"));
}

TEST_CASE("an option that another makes useless is refused", "[methods][cli]") {
  const ScratchFolder folder;
  const auto refusal = [&](const std::string& more) {
    const ProgramRun run = run_program(
        "train --data 8gaussians --method flow-matching --steps 1 --width 8 --depth 1 --threads 1 "
        "--quiet --out run " +
            more,
        folder.path());
    CHECK(run.code != 0);
    return run.error;
  };
  CHECK(contains(refusal("--huber 0.1"), "only with pseudo-huber, element-huber"));
  CHECK(contains(refusal("--times uniform --time-mean 1"), "--times uniform"));
  CHECK(contains(refusal("--times u-shaped --time-draws stratified"), "--times u-shaped"));
  CHECK(contains(refusal("--times never"), "logit-normal"));
}
