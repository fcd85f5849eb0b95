// Paths and predictions: every conversion in f64, against the definitions.
#include <cmath>
#include <nlohmann/json.hpp>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/paths/prediction.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// EDM's scales (Karras et al. 2022, table 1) for noise level sigma, of the shape of sigma:
// D(x) = skip x + out F(in x, noise), noise = log(sigma) / 4.
struct EdmScales {
  Tensor skip, out, in, noise;
};
EdmScales edm_scales(const Tensor& sigma, double sigma_data) {
  const Tensor q = hypot(sigma, full_like(sigma, sigma_data));
  return {.skip = square(sigma_data / q),
          .out = sigma * sigma_data / q,
          .in = 1.0 / q,
          .noise = 0.25 * log(sigma)};
}

const std::vector<Path>& all_paths() {
  static const std::vector<Path> paths = {Path::linear(),  Path::trig(), Path::vp(),
                                          Path::sub_vp(),  Path::ve(),   Path::edm(),
                                          Path::trigflow()};
  return paths;
}
const std::vector<Prediction> combinations = {
    Prediction::velocity,        Prediction::noise, Prediction::data,
    Prediction::score,           Prediction::v,     Prediction::F,
    Prediction::average_velocity};

// Times inside the path, clear of its ends.
Tensor inner_times(const Path& path, const Device& device) {
  const double low = path.clean_time(), high = path.noise_time();
  std::vector<double> times;
  for (const double share : {0.1, 0.35, 0.6, 0.85}) times.push_back(low + share * (high - low));
  return Tensor::from(times, {4}, device);
}

// The largest error relative to the largest number.
double error_of(const Tensor& got, const Tensor& want) {
  const double size = max(abs(want)).item<double>();
  return max(abs(got - want)).item<double>() / (size > 0 ? size : 1);
}

struct PathDraws {
  Device device = cpu({.threads = 1});
  Tensor x = normal(random_key(1, device), {4, 3}, DType::f64);
  Tensor e = normal(random_key(2, device), {4, 3}, DType::f64);
};

}  // namespace

TEST_CASE("rates of a path are the derivatives of alpha and sigma, and numbers are as tensors",
          "[paths]") {
  const PathDraws draws;
  for (const Path& path : all_paths()) {
    INFO(to_string(path.kind));
    const Tensor t = inner_times(path, draws.device);
    const auto levels = [&](const Tensor& time) {
      const PathPoint at = path.at(time);
      return std::pair(at.alpha, at.sigma);
    };
    const auto [value, rate] = jvp(levels, t, ones_like(t));
    const PathPoint at = path.at(t);
    CHECK(error_of(at.alpha_rate, rate.first) < 1e-12);
    CHECK(error_of(at.sigma_rate, rate.second) < 1e-12);
    const std::vector<double> times = t.to_host<double>(), alpha = at.alpha.to_host<double>(),
                              sigma = at.sigma.to_host<double>();
    for (std::size_t i = 0; i < times.size(); ++i) {
      const PathNumbers numbers = path.at(times[i]);
      CHECK(numbers.alpha == Approx(alpha[i]).epsilon(1e-13));
      CHECK(numbers.sigma == Approx(sigma[i]).epsilon(1e-13));
      CHECK(path.time_of(numbers) == Approx(times[i]).epsilon(1e-12));
    }
    CHECK(error_of(path.time_of(at), t) < 1e-12);
  }
}

TEST_CASE("the SDEs of VP, sub-VP and VE are those of Song et al.", "[paths]") {
  for (const double t : {0.1, 0.5, 0.9}) {
    const double beta = 0.1 + 19.9 * t, integral = 0.1 * t + 19.9 * t * t / 2;
    for (const Path& path : {Path::vp(), Path::sub_vp()})
      CHECK(drift(path.at(t)) == Approx(-beta / 2).epsilon(1e-12));
    CHECK(diffusion_squared(Path::vp().at(t)) == Approx(beta).epsilon(1e-11));
    CHECK(diffusion_squared(Path::sub_vp().at(t)) ==
          Approx(beta * (1 - std::exp(-2 * integral))).epsilon(1e-11));
    const double sigma = 0.01 * std::pow(5000, t);
    CHECK(diffusion_squared(Path::ve().at(t)) ==
          Approx(2 * sigma * sigma * std::log(5000)).epsilon(1e-12));
    CHECK(diffusion_squared(Path::linear().at(t)) == Approx(2 * t / (1 - t)).epsilon(1e-12));
  }
}

TEST_CASE("every prediction becomes every other exactly, on every path", "[paths]") {
  const PathDraws draws;
  for (const Path& path : all_paths()) {
    const Tensor t = inner_times(path, draws.device);
    const Tensor z = noised(path, draws.x, draws.e, t);
    for (const Prediction from : combinations) {
      const Tensor y = prediction_target(from, path, draws.x, draws.e, t);
      for (const Prediction to : combinations) {
        INFO(to_string(path.kind) << ": " << to_string(from) << " to " << to_string(to));
        const Tensor want = prediction_target(to, path, draws.x, draws.e, t);
        // Of data and noise, what is small beside the other in z keeps fewer digits.
        const PathNumbers end =
            path.at(path.clean_time() + 0.85 * (path.noise_time() - path.clean_time()));
        const double condition = std::max({1.0, end.sigma / end.alpha, end.alpha / end.sigma});
        CHECK(error_of(convert_prediction(y, from, to, path, z, t), want) <
              1e-15 * 100 * condition);
        CHECK(1e-15 * 100 * condition < 1e-10);
      }
    }
  }
}

TEST_CASE("conversions are below 1e-12 where data and noise are of one size", "[paths]") {
  const PathDraws draws;
  for (const Path& path : all_paths()) {
    // sigma / alpha from 1/3 to 3, whatever the path.
    const Tensor ratio = Tensor::from(std::vector<double>{1.0 / 3, 0.7, 1.5, 3}, {4}, draws.device);
    const PathPoint level{ones_like(ratio), ratio, {}, {}};
    const Tensor t = path.time_of(level);
    const PathPoint at = path.at(t);
    CHECK(error_of(at.sigma / at.alpha, ratio) < 1e-12);
    const Tensor z = noised(path, draws.x, draws.e, t);
    for (const Prediction from : combinations)
      for (const Prediction to : combinations) {
        INFO(to_string(path.kind) << ": " << to_string(from) << " to " << to_string(to));
        const Tensor y = prediction_target(from, path, draws.x, draws.e, t);
        CHECK(error_of(convert_prediction(y, from, to, path, z, t),
                       prediction_target(to, path, draws.x, draws.e, t)) < 1e-12);
        const Tensor there = convert_prediction(y, from, to, path, z, t);
        CHECK(error_of(convert_prediction(there, to, from, path, z, t), y) < 1e-12);
      }
  }
}

TEST_CASE("a network trained on one path has the velocity of any other", "[paths]") {
  const PathDraws draws;
  const Tensor ratio = Tensor::from(std::vector<double>{0.4, 0.8, 1.5, 3}, {4}, draws.device);
  const PathPoint level{ones_like(ratio), ratio, {}, {}};
  for (const Path& trained : all_paths())
    for (const Path& other : all_paths())
      for (const Prediction prediction : combinations) {
        INFO(to_string(trained.kind)
             << " to " << to_string(other.kind) << ": " << to_string(prediction));
        // A network that knows x: exact at every point, and it must be asked at its own z and t.
        const Predictor predictor{
            .network =
                [&](const Tensor& z, const Times& times, const Tensor&) {
                  const PathPoint at = trained.at(times.t);
                  const Tensor e =
                      (z - expand_dims(at.alpha, 1) * draws.x) / expand_dims(at.sigma, 1);
                  return prediction_target(prediction, trained, draws.x, e, times.t);
                },
            .path = trained,
            .prediction = prediction};
        const Tensor t = other.time_of(level);
        const Tensor z = noised(other, draws.x, draws.e, t);
        const Tensor got = predictor.on(other)(Prediction::velocity, z, t);
        CHECK(error_of(got, prediction_target(Prediction::velocity, other, draws.x, draws.e, t)) <
              1e-12);
      }
  // Where alpha is 0 on both: all noise, at the same place.
  const Predictor linear{.network = [](const Tensor& z, const Times&, const Tensor&) { return z; },
                         .path = Path::linear(),
                         .prediction = Prediction::velocity};
  const Tensor one = full({}, 1, DType::f64, draws.device);
  // v = z there is e - x = z: x = 0, and so trig's velocity, -pi/2 x, is 0.
  const Tensor v = linear.on(Path::trig())(Prediction::velocity, draws.e, one);
  CHECK(max(abs(v)).item<double>() < 1e-15);
}

TEST_CASE("EDM's F is that of its denoiser, and TrigFlow's network is -F", "[paths]") {
  const PathDraws draws;
  const Path edm = Path::edm();
  const Tensor sigma = Tensor::from(std::vector<double>{0.01, 0.4, 3, 70}, {4}, draws.device);
  const EdmScales scales = edm_scales(sigma, 0.5);
  const auto column = [](const Tensor& values) { return expand_dims(values, 1); };
  const Tensor z = draws.x + column(sigma) * draws.e;
  const Tensor F = (draws.x - column(scales.skip) * z) / column(scales.out);
  CHECK(error_of(prediction_target(Prediction::F, edm, draws.x, draws.e, sigma), F) < 1e-12);
  CHECK(error_of(convert_prediction(F, Prediction::F, Prediction::data, edm, z, sigma), draws.x) <
        1e-12);
  const Velocity raw = [](const Tensor& input, const Times& times, const Tensor&) {
    return input + expand_dims(times.t, 1);
  };
  CHECK(error_of(edm_inputs(raw, edm)(z, {.t = sigma, .r = sigma}, {}),
                 column(scales.in) * z + column(scales.noise)) < 1e-12);

  const Path trigflow = Path::trigflow();
  const Tensor angle = inner_times(trigflow, draws.device);
  CHECK(error_of(-prediction_target(Prediction::velocity, trigflow, draws.x, draws.e, angle),
                 0.5 * prediction_target(Prediction::F, trigflow, draws.x, draws.e, angle)) <
        1e-12);
}

TEST_CASE("predictors call their network once, and derivatives pass through conversions",
          "[paths]") {
  const PathDraws draws;
  int calls = 0;
  const Predictor predictor{.network =
                                [&](const Tensor& z, const Times& times, const Tensor&) {
                                  ++calls;
                                  return sin(z) * expand_dims(times.t, 1);
                                },
                            .path = Path::vp(),
                            .prediction = Prediction::noise};
  const Tensor t = full({4}, 0.4, DType::f64, draws.device);
  const auto velocity = [&](const Tensor& z) { return predictor(Prediction::velocity, z, t); };
  const Tensor direction = ones_like(draws.x);
  const Tensor slope = jvp(velocity, std::tuple(draws.x), std::tuple(direction)).second;
  CHECK(calls == 1);
  const double h = 1e-5;
  const Tensor difference =
      (velocity(draws.x + h * direction) - velocity(draws.x - h * direction)) / (2 * h);
  CHECK(error_of(slope, difference) < 1e-8);
}

TEST_CASE("jumps go where average velocities and end points say", "[paths]") {
  const PathDraws draws;
  const Velocity constant = [](const Tensor& z, const Times&, const Tensor&) {
    return full_like(z, 2);
  };
  const Tensor t = full({}, 0.9, DType::f64, draws.device),
               r = full({4}, 0.4, DType::f64, draws.device);
  const Predictor average{constant, Path::linear(), Prediction::average_velocity};
  CHECK(error_of(average.jump(draws.x, t, r), draws.x - 1.0) < 1e-12);
  const Predictor end{constant, Path::edm(), Prediction::end_point};
  CHECK(error_of(end.jump(draws.x, t, r), full_like(draws.x, 2)) == 0);
  const Predictor velocity{constant, Path::linear(), Prediction::velocity};
  CHECK_THAT(message_of([&] { velocity.jump(draws.x, t, r); }), has_text("predicts velocity"));
  CHECK_THAT(message_of([&] { end(Prediction::data, draws.x, t); }), has_text("end point"));
  CHECK_THAT(message_of([&] { end.on(Path::linear()); }), has_text("end point"));
}

TEST_CASE("paths survive JSON, and wrong ones are named", "[paths]") {
  for (const Path& path : all_paths()) CHECK(path_from_json(path_to_json(path)) == path);
  CHECK(path_from_json({{"kind", "edm"}}) == Path::edm());
  CHECK_THAT(message_of<FormatError>([] {
               path_from_json({{"kind", "vp2"}});
             }),
             has_text("'vp', 'sub-vp'"));
  CHECK_THAT(message_of<FormatError>([] {
               path_from_json({{"kind", "vp"}, {"beta_min", "a"}});
             }),
             has_text("'beta_min'"));
  CHECK_THAT(message_of<FormatError>([] {
               path_from_json({{"kind", "ve"}, {"sigma_min", 100}});
             }),
             has_text("sigma_min < sigma_max"));
  CHECK_THAT(message_of<FormatError>([] { path_from_json(nlohmann::json(3)); }),
             has_text("'kind'"));
  for (const Prediction each : combinations) CHECK(prediction_from(to_string(each)) == each);
  CHECK_THAT(message_of<FormatError>([] { prediction_from("x"); }), has_text("'end-point'"));
}
