#include "models/paths/prediction.h"

#include <utility>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "models/names.h"

namespace fluxion {
namespace {

constexpr EnumNames<Prediction, 8> prediction_names = {
    {{Prediction::velocity, "velocity"},
     {Prediction::noise, "noise"},
     {Prediction::data, "data"},
     {Prediction::score, "score"},
     {Prediction::v, "v"},
     {Prediction::F, "F"},
     {Prediction::average_velocity, "average-velocity"},
     {Prediction::end_point, "end-point"}}};

Combination combination_at(Prediction prediction, const Path& path, const PathPoint& at) {
  switch (prediction) {
    case Prediction::velocity:
    case Prediction::average_velocity:
      return {at.alpha_rate, at.sigma_rate};
    case Prediction::noise:
      return {zeros_like(at.alpha), ones_like(at.alpha)};
    case Prediction::data:
      return {ones_like(at.alpha), zeros_like(at.alpha)};
    case Prediction::score:
      return {zeros_like(at.alpha), -1.0 / at.sigma};
    case Prediction::v:
      return {-at.sigma, at.alpha};
    case Prediction::F: {
      const Tensor q = hypot(at.sigma, path.sigma_data * at.alpha);
      return {at.sigma / (path.sigma_data * q), -path.sigma_data * at.alpha / q};
    }
    case Prediction::end_point:
      break;
  }
  throw Error(
      "prediction: an end point is where a trajectory ends, no combination of data and noise: it "
      "can't be converted");
}

Tensor over_batch(const Tensor& time, const Tensor& z) {
  return broadcast_to(time, Shape{z.size(0)});
}

}  // namespace

std::string to_string(Prediction prediction) { return name_of(prediction_names, prediction); }

Prediction prediction_from(const std::string& name) {
  return value_named(prediction_names, name, "prediction");
}

Combination combination(Prediction prediction, const Path& path, const Tensor& t) {
  return combination_at(prediction, path, path.at(t));
}

Tensor prediction_target(Prediction prediction, const Path& path, const Tensor& x, const Tensor& e,
                         const Tensor& t) {
  const auto [a, b] = combination(prediction, path, t);
  return over_samples(a, x.rank()) * x + over_samples(b, x.rank()) * e;
}

Tensor convert_prediction(const Tensor& y, const Combination& from, const Combination& to,
                          const PathPoint& at, const Tensor& z) {
  const Tensor d = at.alpha * from.b - at.sigma * from.a;
  const Tensor of_z = (from.b * to.a - from.a * to.b) / d,
               of_y = (at.alpha * to.b - at.sigma * to.a) / d;
  return over_samples(of_z, z.rank()) * z + over_samples(of_y, z.rank()) * y;
}

Tensor convert_prediction(const Tensor& y, Prediction from, Prediction to, const Path& path,
                          const Tensor& z, const Tensor& t) {
  const PathPoint at = path.at(t);
  const Combination source = combination_at(from, path, at), target = combination_at(to, path, at);
  const auto same = [](Prediction p) {
    return p == Prediction::average_velocity ? Prediction::velocity : p;
  };
  return same(from) == same(to) ? y : convert_prediction(y, source, target, at, z);
}

Tensor Predictor::operator()(Prediction wanted, const Tensor& z, const Tensor& t,
                             const Tensor& labels) const {
  const Tensor times = over_batch(t, z);
  const Tensor y = network(z, {.t = times, .r = times}, labels);
  return wanted == prediction ? y : convert_prediction(y, prediction, wanted, path, z, t);
}

Tensor Predictor::jump(const Tensor& z, const Tensor& t, const Tensor& r,
                       const Tensor& labels) const {
  const Times times{.t = over_batch(t, z), .r = over_batch(r, z)};
  if (prediction == Prediction::average_velocity)
    return z + over_samples(r - t, z.rank()) * network(z, times, labels);
  if (prediction == Prediction::end_point) return network(z, times, labels);
  throw Error("sampling: a network that predicts " + to_string(prediction) +
              " can't jump along a trajectory; average velocities and end points can");
}

Predictor Predictor::on(const Path& other) const {
  if (other == path && prediction == Prediction::velocity) return *this;
  if (prediction == Prediction::end_point)
    throw Error("prediction: an end point has no velocity on path " + to_string(other.kind));
  const Velocity moved = [own = *this, other](const Tensor& z, const Times& times,
                                              const Tensor& labels) {
    const PathPoint there = other.at(times.t);
    const Tensor t = own.path.time_of(there);
    const PathPoint here = own.path.at(t);
    // One of alpha and sigma may be 0, and both have the same ratio.
    const Tensor scale = (here.alpha + here.sigma) / (there.alpha + there.sigma);
    const Tensor y = own.network(over_samples(scale, z.rank()) * z, {.t = t, .r = t}, labels);
    return convert_prediction(y, combination_at(own.prediction, own.path, here),
                              combination_at(Prediction::velocity, other, there), there, z);
  };
  return {.network = moved, .path = other, .prediction = Prediction::velocity};
}

Velocity edm_inputs(Velocity network, const Path& path) {
  return [network = std::move(network), path](const Tensor& z, const Times& times,
                                              const Tensor& labels) {
    const PathPoint at = path.at(times.t);
    const Tensor q = hypot(at.sigma, path.sigma_data * at.alpha);
    const Tensor level = 0.25 * log(at.sigma / at.alpha);
    return network(z / over_samples(q, z.rank()), {.t = level, .r = zeros_like(level)}, labels);
  };
}

}  // namespace fluxion
