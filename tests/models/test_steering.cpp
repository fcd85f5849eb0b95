// Samples that agree with a picture, and samples that begin with one: against a Gaussian whose flow
// is known in closed form, in f64.
#include <cmath>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/exact/gaussian_mixture.h"
#include "models/samplers/solver.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;
#if __has_include(<catch2/catch_all.hpp>)
using Catch::Approx;
#endif

namespace {

constexpr std::int64_t side = 4, pixels = side * side;

// Pictures of 4 x 4 grey pixels around 0.2, the more alike the nearer they are.
struct PictureCase {
  Device device = cpu({.threads = 1});
  GaussianMixture mixture{
      {{.weight = 1, .mean = std::vector<double>(pixels, 0.2), .covariance = covariance()}},
      device};
  Tensor noise = normal(random_key(5, device), {64, side, side, 1}, DType::f64);

  static std::vector<double> covariance() {
    std::vector<double> values;
    for (std::int64_t i = 0; i < pixels; ++i)
      for (std::int64_t j = 0; j < pixels; ++j) {
        const double down = static_cast<double>(i / side - j / side),
                     across = static_cast<double>(i % side - j % side);
        values.push_back(0.3 * std::exp(-std::hypot(down, across) / 3));
      }
    return values;
  }
  Predictor predictor(Prediction prediction, const Path& path) const {
    const Velocity flat = mixture.network(prediction, path);
    return {[flat](const Tensor& z, const Times& times, const Tensor& labels) {
              return reshape(flat(reshape(z, {z.size(0), pixels}), times, labels), z.shape());
            },
            path, prediction};
  }
  Tensor tensor(const std::vector<double>& values, const Shape& shape) const {
    return Tensor::from(values, shape, device);
  }
  // A picture that is bright on the left and dark on the right.
  Tensor picture() const {
    std::vector<double> values;
    for (std::int64_t i = 0; i < pixels; ++i) values.push_back(i % side < side / 2 ? 0.9 : -0.7);
    return tensor(values, {side, side, 1});
  }
  // The left half is known.
  Observation left_half() const {
    std::vector<double> mask;
    for (std::int64_t i = 0; i < pixels; ++i) mask.push_back(i % side < side / 2 ? 1 : 0);
    return {.value = picture(), .mask = tensor(mask, {side, side, 1})};
  }
  std::vector<Observation> observations() const {
    Observation small{.kind = ObservationKind::reduced, .factor = 2};
    small.value = reshape(observe(small, expand_dims(picture(), 0)), {2, 2, 1});
    Observation soft{.kind = ObservationKind::blurred, .blur = 0.8};
    soft.value = reshape(observe(soft, expand_dims(picture(), 0)), {side, side, 1});
    return {left_half(), small, soft};
  }
};

double number(const Tensor& tensor) { return tensor.item<double>(); }

// Mean square of what samples differ by from what is known.
double residual(const Observation& known, const Tensor& samples) {
  Tensor error = observe(known, samples) - expand_dims(known.value, 0);
  if (known.kind == ObservationKind::pixels) error = error * expand_dims(known.mask, 0);
  return number(mean(square(error)));
}

}  // namespace

TEST_CASE("back projections are transposes of observations", "[samplers]") {
  const PictureCase c;
  for (const Observation& known : c.observations()) {
    const Tensor x = normal(random_key(1, c.device), {3, side, side, 1}, DType::f64),
                 seen = observe(known, x),
                 r = normal(random_key(2, c.device), seen.shape(), DType::f64);
    // |A|^2 is 1 but for means over squares.
    const double norm = known.kind == ObservationKind::reduced ? 0.25 : 1;
    CHECK(number(sum(seen * r)) ==
          Approx(norm * number(sum(x * back_project(known, r)))).epsilon(1e-12));
  }
  // A blur keeps a constant, at the borders too.
  const Observation soft = c.observations()[2];
  const Tensor constant = full({2, side, side, 1}, 3, DType::f64, c.device);
  CHECK(number(max(abs(observe(soft, constant) - constant))) < 1e-12);
}

TEST_CASE("steered samples agree with what is known, on every path", "[samplers]") {
  const PictureCase c;
  struct Kind {
    SamplerKind sampler;
    Prediction prediction;
    Path path;
  };
  for (const Kind& kind : {Kind{SamplerKind::ode_euler, Prediction::velocity, Path::linear()},
                           Kind{SamplerKind::ode_heun, Prediction::data, Path::trig()},
                           Kind{SamplerKind::ddim, Prediction::noise, Path::vp()},
                           Kind{SamplerKind::edm, Prediction::F, Path::edm()},
                           Kind{SamplerKind::dpm_solver, Prediction::velocity, Path::linear()},
                           Kind{SamplerKind::sde, Prediction::score, Path::vp()}}) {
    INFO(to_string(kind.sampler));
    const Predictor predictor = c.predictor(kind.prediction, kind.path);
    const SamplerOptions options{.kind = kind.sampler, .steps = 60};
    const Tensor free = Solver(predictor, options).run({.noise = c.noise});
    for (const Observation& known : c.observations()) {
      const Solver solver(predictor, options, 0, Steering{SteeringKind::flowchef, known, 0.5});
      CHECK(residual(known, solver.run({.noise = c.noise})) < 0.05 * residual(known, free));
    }
    const Observation known = c.left_half();
    const Solver solver(predictor, options, 0, Steering{SteeringKind::replacement, known});
    const Tensor samples = solver.run({.noise = c.noise});
    CHECK(residual(known, samples) < 1e-6);
    // What the known half says about the column beside it: exp(-1/3) of its distance from the mean
    // and more, for a Gaussian; without steering it says nothing.
    const auto column = [](const Tensor& x) { return slice_axis(x, 2, side / 2, side / 2 + 1); };
    CHECK(std::abs(number(mean(column(free))) - 0.2) < 0.15);
    CHECK(number(mean(column(samples))) > 0.4);
  }
}

TEST_CASE("known pixels are kept exactly where a path ends with some noise", "[samplers]") {
  const PictureCase c;
  Path path = Path::ve();
  path.sigma_min = 0.05;
  const Observation known = c.left_half();
  const Solver solver(c.predictor(Prediction::score, path),
                      {.kind = SamplerKind::ode_euler, .steps = 20}, 0,
                      Steering{SteeringKind::replacement, known});
  CHECK(residual(known, solver.run({.noise = c.noise})) < 1e-12);
}

TEST_CASE("known pixels that are not asked for change nothing", "[samplers]") {
  const PictureCase c;
  const Predictor predictor = c.predictor(Prediction::velocity, Path::linear());
  const SamplerOptions options{.kind = SamplerKind::ode_euler, .steps = 5};
  Observation nothing{.value = c.picture(), .mask = zeros({side, side, 1}, DType::f64, c.device)};
  // Not even what is no number.
  nothing.value = full({side, side, 1}, std::nan(""), DType::f64, c.device);
  const Tensor free = Solver(predictor, options).run({.noise = c.noise});
  for (const SteeringKind kind : {SteeringKind::replacement, SteeringKind::flowchef}) {
    const Solver solver(predictor, options, 0, Steering{kind, nothing});
    CHECK(number(max(abs(solver.run({.noise = c.noise}) - free))) == 0);
  }
}

TEST_CASE("samples that begin with a picture keep more of it the later they begin", "[samplers]") {
  const PictureCase c;
  double before = 1e30;
  for (const auto& [kind, path, grid] :
       {std::tuple(SamplerKind::ode_heun, Path::linear(), GridKind::uniform),
        {SamplerKind::ddim, Path::vp(), GridKind::log_snr},
        {SamplerKind::edm, Path::edm(), GridKind::karras}}) {
    INFO(to_string(kind));
    const Predictor predictor = c.predictor(Prediction::velocity, path);
    before = 1e30;
    for (const double begin : {0.0, 0.4, 0.8, 0.999}) {
      const SamplerOptions options{.kind = kind, .steps = 20, .grid = grid, .begin = begin};
      const Solver solver(predictor, options);
      const Tensor samples = solver.run({.noise = c.noise, .data = c.picture()});
      const double apart = std::sqrt(number(mean(square(samples - expand_dims(c.picture(), 0)))));
      CHECK(apart < before);
      before = apart;
    }
    CHECK(before < 0.02);
  }
  // The grid is the rest of the whole way's: of ten steps, the last six.
  const Predictor predictor = c.predictor(Prediction::velocity, Path::linear());
  const TimeGrid whole = Solver(predictor, {.kind = SamplerKind::ode_euler, .steps = 10}).grid(),
                 rest =
                     Solver(predictor, {.kind = SamplerKind::ode_euler, .steps = 6, .begin = 0.4})
                         .grid();
  for (std::size_t i = 0; i < rest.size(); ++i)
    CHECK(rest[i].t == Approx(whole[i + 4].t).epsilon(1e-12));
  for (const GridKind grid : {GridKind::karras, GridKind::log_snr}) {
    SamplerOptions options{.kind = SamplerKind::edm, .steps = 11, .grid = grid};
    const Predictor of_edm = c.predictor(Prediction::velocity, Path::edm());
    const TimeGrid all = Solver(of_edm, options).grid();
    options.steps = 7;
    options.begin = 0.4;
    const TimeGrid cut = Solver(of_edm, options).grid();
    for (std::size_t i = 0; i < cut.size(); ++i)
      CHECK(cut[i].sigma == Approx(all[i + 4].sigma).epsilon(1e-12));
  }
}

TEST_CASE("steering that can't be is refused by what is wrong with it", "[samplers]") {
  const PictureCase c;
  const Shape sample{side, side, 1};
  const auto fault = [&](const Steering& steering, const Shape& shape) {
    return message_of([&] { check(steering, shape); });
  };
  const Observation half = c.left_half();
  CHECK_NOTHROW(check(Steering{SteeringKind::replacement, half}, sample));
  CHECK_THAT(fault({SteeringKind::replacement, half}, {2}), has_text("must be images"));
  CHECK_THAT(fault({SteeringKind::replacement, half}, {side, side, 3}), has_text("[4, 4, 3]"));
  CHECK_THAT(fault({SteeringKind::flowchef, half, 0}, sample), has_text("scale must be above 0"));
  Observation wrong = half;
  wrong.mask = Tensor();
  CHECK_THAT(fault({SteeringKind::flowchef, wrong}, sample), has_text("mask must have the shape"));
  wrong = c.observations()[1];
  CHECK_THAT(fault({SteeringKind::replacement, wrong}, sample), has_text("wants known pixels"));
  wrong.factor = 3;
  CHECK_THAT(fault({SteeringKind::flowchef, wrong}, sample), has_text("factor must divide"));
  wrong = c.observations()[2];
  wrong.blur = 0;
  CHECK_THAT(fault({SteeringKind::flowchef, wrong}, sample), has_text("above 0 pixels"));

  const Predictor predictor = c.predictor(Prediction::velocity, Path::linear());
  CHECK_THAT(message_of([&] {
               Solver(predictor, {.kind = SamplerKind::ode_dopri5, .steps = 9}, 0,
                      Steering{SteeringKind::flowchef, half});
             }),
             has_text("error control"));
  for (const double begin : {-0.1, 1.0, std::nan("")})
    CHECK_THAT(
        message_of([&] {
          check(SamplerOptions{
              .kind = SamplerKind::ode_euler, .prediction = Prediction::velocity, .begin = begin});
        }),
        has_text("begin must be"));
}
