#include "models/paths/path.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "models/json_text.h"
#include "models/layers/layers.h"
#include "models/names.h"

namespace fluxion {
namespace {

constexpr EnumNames<PathKind, 7> path_names = {{{PathKind::linear, "linear"},
                                                {PathKind::trig, "trig"},
                                                {PathKind::vp, "vp"},
                                                {PathKind::sub_vp, "sub-vp"},
                                                {PathKind::ve, "ve"},
                                                {PathKind::edm, "edm"},
                                                {PathKind::trigflow, "trigflow"}}};

constexpr double half_turn = std::numbers::pi / 2;

// The formulas below are written once, for tensors and for numbers.
double like(double, double value) { return value; }
Tensor like(const Tensor& t, double value) { return full_like(t, value); }
double square(double x) { return x * x; }

template <class T>
T integrated_beta(const Path& path, const T& t) {
  return path.beta_min * t + 0.5 * (path.beta_max - path.beta_min) * square(t);
}

template <class T>
BasicPathPoint<T> path_point(const Path& path, const T& t) {
  using std::cos, std::exp, std::expm1, std::sin, std::sqrt;
  switch (path.kind) {
    case PathKind::linear:
      return {1.0 - t, t, like(t, -1), like(t, 1)};
    case PathKind::trig: {
      const T alpha = cos(half_turn * t), sigma = sin(half_turn * t);
      return {alpha, sigma, -half_turn * sigma, half_turn * alpha};
    }
    case PathKind::vp:
    case PathKind::sub_vp: {
      const T integral = integrated_beta(path, t);
      const T beta = path.beta_min + (path.beta_max - path.beta_min) * t;
      const T alpha = exp(-0.5 * integral), variance = -expm1(-integral);
      const T alpha_rate = -0.5 * beta * alpha, variance_rate = beta * exp(-integral);
      if (path.kind == PathKind::sub_vp) return {alpha, variance, alpha_rate, variance_rate};
      const T sigma = sqrt(variance);
      return {alpha, sigma, alpha_rate, 0.5 * variance_rate / sigma};
    }
    case PathKind::ve: {
      const double rate = std::log(path.sigma_max / path.sigma_min);
      const T sigma = path.sigma_min * exp(rate * t);
      return {like(t, 1), sigma, like(t, 0), rate * sigma};
    }
    case PathKind::edm:
      return {like(t, 1), t, like(t, 0), like(t, 1)};
    case PathKind::trigflow: {
      const T alpha = cos(t), sine = sin(t);
      return {alpha, path.sigma_data * sine, -1.0 * sine, path.sigma_data * alpha};
    }
  }
  throw Error("path: unknown kind");
}

// Solves integrated_beta(t) = integral for t >= 0.
template <class T>
T time_of_integral(const Path& path, const T& integral) {
  using std::sqrt;
  const double low = path.beta_min, slope = path.beta_max - path.beta_min;
  return 2.0 * integral / (low + sqrt(low * low + 2.0 * slope * integral));
}

template <class T>
T path_time(const Path& path, const BasicPathPoint<T>& at) {
  using std::atan2, std::hypot, std::log, std::log1p;
  switch (path.kind) {
    case PathKind::linear:
      return at.sigma / (at.alpha + at.sigma);
    case PathKind::trig:
      return atan2(at.sigma, at.alpha) / half_turn;
    case PathKind::vp:
      return time_of_integral<T>(path, log1p(square(T(at.sigma / at.alpha))));
    case PathKind::sub_vp: {
      // alpha^2 + alpha sigma / alpha - 1 = 0.
      const T half = 0.5 * at.sigma / at.alpha;
      return time_of_integral<T>(path, 2.0 * log(hypot(half, like(half, 1)) + half));
    }
    case PathKind::ve:
      return log(at.sigma / (at.alpha * path.sigma_min)) /
             std::log(path.sigma_max / path.sigma_min);
    case PathKind::edm:
      return at.sigma / at.alpha;
    case PathKind::trigflow:
      return atan2(at.sigma, path.sigma_data * at.alpha);
  }
  throw Error("path: unknown kind");
}

// Members by name, listed once for both directions.
template <class Value, class F>
void visit_numbers(Value& path, F&& f) {
  f("beta_min", path.beta_min);
  f("beta_max", path.beta_max);
  f("sigma_min", path.sigma_min);
  f("sigma_max", path.sigma_max);
  f("sigma_data", path.sigma_data);
}

Path with_kind(PathKind kind) {
  switch (kind) {
    case PathKind::ve:
      return Path::ve();
    case PathKind::edm:
      return Path::edm();
    default:
      return {.kind = kind};
  }
}

}  // namespace

std::string to_string(PathKind kind) { return name_of(path_names, kind); }

PathKind path_kind_from(const std::string& name) { return value_named(path_names, name, "path"); }

Path Path::linear() { return {}; }
Path Path::trig() { return {.kind = PathKind::trig}; }
Path Path::vp(double beta_min, double beta_max) {
  return {.kind = PathKind::vp, .beta_min = beta_min, .beta_max = beta_max};
}
Path Path::sub_vp(double beta_min, double beta_max) {
  return {.kind = PathKind::sub_vp, .beta_min = beta_min, .beta_max = beta_max};
}
Path Path::ve(double sigma_min, double sigma_max) {
  return {.kind = PathKind::ve, .sigma_min = sigma_min, .sigma_max = sigma_max};
}
Path Path::edm(double sigma_min, double sigma_max) {
  return {.kind = PathKind::edm, .sigma_min = sigma_min, .sigma_max = sigma_max};
}
Path Path::trigflow(double sigma_data) {
  return {.kind = PathKind::trigflow, .sigma_data = sigma_data};
}

PathPoint Path::at(const Tensor& t) const { return path_point(*this, t); }
PathNumbers Path::at(double t) const { return path_point(*this, t); }
Tensor Path::time_of(const PathPoint& point) const { return path_time(*this, point); }
double Path::time_of(const PathNumbers& point) const { return path_time(*this, point); }

double Path::clean_time() const {
  if (kind == PathKind::edm) return sigma_min;
  return kind == PathKind::vp || kind == PathKind::sub_vp ? 1e-3 : 0;
}

double Path::noise_time() const {
  if (kind == PathKind::edm) return sigma_max;
  return kind == PathKind::trigflow ? half_turn : 1;
}

Tensor over_samples(const Tensor& values, std::int64_t rank) {
  return values.rank() == 0 ? values : per_sample(values, rank);
}

Tensor noised(const Path& path, const Tensor& x, const Tensor& e, const Tensor& t) {
  const PathPoint at = path.at(t);
  return over_samples(at.alpha, x.rank()) * x + over_samples(at.sigma, x.rank()) * e;
}

void check(const Path& path) {
  visit_numbers(path, [&](const char* name, double value) {
    if (!(value >= 0) || !std::isfinite(value))
      throw Error("path " + to_string(path.kind) + ": " + name +
                  " must be a number from 0 up, got " + number_text(value));
  });
  const auto ordered = [&](const char* names, double low, double high) {
    if (!(low > 0 && low < high))
      throw Error("path " + to_string(path.kind) + ": wants 0 < " + names + ", got " +
                  number_text(low) + " and " + number_text(high));
  };
  if (path.kind == PathKind::vp || path.kind == PathKind::sub_vp)
    ordered("beta_min < beta_max", path.beta_min, path.beta_max);
  if (path.kind == PathKind::ve || path.kind == PathKind::edm)
    ordered("sigma_min < sigma_max", path.sigma_min, path.sigma_max);
  if (!(path.sigma_data > 0))
    throw Error("path " + to_string(path.kind) + ": sigma_data must be above 0, got " +
                number_text(path.sigma_data));
}

nlohmann::json path_to_json(const Path& path) {
  nlohmann::json result = {{"kind", to_string(path.kind)}};
  visit_numbers(path, [&](const char* name, double value) { result[name] = value; });
  return result;
}

Path path_from_json(const nlohmann::json& json) {
  if (!json.is_object() || !json.contains("kind") || !json["kind"].is_string())
    throw FormatError("path: wants an object with the member 'kind', got " + json.dump());
  Path path = with_kind(path_kind_from(json["kind"].get<std::string>()));
  visit_numbers(path, [&](const char* name, double& value) {
    if (const auto* const found = find_json_member(json, name))
      value = json_number(*found, std::string("path: member '") + name + "'");
  });
  try {
    check(path);
  } catch (const Error& error) {
    throw FormatError(error.what());
  }
  return path;
}

}  // namespace fluxion
