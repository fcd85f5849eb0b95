#include "models/objectives/times.h"

#include <cmath>
#include <initializer_list>
#include <numbers>
#include <string>

#include "engine/error.h"
#include "engine/number_text.h"

namespace fluxion {
namespace {

constexpr double pi = std::numbers::pi;

// The polynomial with these coefficients, the highest power's first.
Tensor polynomial(const Tensor& x, std::initializer_list<double> coefficients) {
  Tensor value = full_like(x, *coefficients.begin());
  for (const double* c = coefficients.begin() + 1; c != coefficients.end(); ++c)
    value = value * x + *c;
  return value;
}

// u of each row, along the last axis.
Tensor uniform_numbers(const TimeSampler& sampler, const Tensor& key, const Shape& shape,
                       DType dtype) {
  const Tensor u = uniform(key, shape, dtype);
  if (!sampler.stratified) return u;
  const std::int64_t rows = shape[shape.rank() - 1];
  return (iota({rows}, 0, dtype, key.device()) + u) / static_cast<double>(rows);
}

Tensor u_shaped(const Tensor& key, const Shape& shape, double a, DType dtype) {
  const Tensor late = log(1.0 + uniform(fold_in(key, 0), shape, dtype) * std::expm1(a)) / a;
  return where(lt(uniform(fold_in(key, 1), shape, dtype), 0.5), late, 1.0 - late);
}

void check(const TimeSampler& sampler) {
  const auto refuse = [](const std::string& what, double value) {
    throw Error("times: " + what + ", not " + number_text(value));
  };
  if (!(sampler.std > 0)) refuse("the deviation is above 0", sampler.std);
  if (!(sampler.shift > 0)) refuse("the shift is above 0", sampler.shift);
  if (sampler.density == TimeDensity::u_shaped) {
    if (!(sampler.slope > 0)) refuse("the slope of u-shaped times is above 0", sampler.slope);
    if (sampler.stratified) throw Error("times: u-shaped ones can't be stratified");
  }
  if (sampler.density == TimeDensity::mode &&
      !(sampler.mode_scale >= -1 && sampler.mode_scale <= largest_mode_scale))
    refuse("the scale of mode is from -1 to " + number_text(largest_mode_scale),
           sampler.mode_scale);
}

Tensor unshifted_times(const TimeSampler& sampler, const Tensor& key, const Shape& shape,
                       DType dtype) {
  switch (sampler.density) {
    case TimeDensity::u_shaped:
      return u_shaped(key, shape, sampler.slope, dtype);
    case TimeDensity::uniform:
      return uniform_numbers(sampler, key, shape, dtype);
    case TimeDensity::mode: {
      const Tensor u = uniform_numbers(sampler, key, shape, dtype);
      return 1.0 - u - sampler.mode_scale * (square(cos(pi / 2 * u)) - 1.0 + u);
    }
    case TimeDensity::cosmap: {
      const Tensor angle = pi / 2 * uniform_numbers(sampler, key, shape, dtype);
      return sin(angle) / (sin(angle) + cos(angle));  // = 1 - 1 / (tan + 1)
    }
    case TimeDensity::logit_normal:
      break;
  }
  const Tensor n = sampler.stratified ? normal_quantile(uniform_numbers(sampler, key, shape, dtype))
                                      : normal(key, shape, dtype);
  return sigmoid(n * sampler.std + sampler.mean);
}

}  // namespace

Tensor draw_times(const TimeSampler& sampler, const Tensor& key, const Shape& shape, DType dtype) {
  check(sampler);
  const Tensor t = unshifted_times(sampler, key, shape, dtype);
  if (sampler.shift == 1) return t;
  return sampler.shift * t / (1.0 + (sampler.shift - 1) * t);
}

Tensor normal_quantile(const Tensor& u) {
  constexpr double least = 0x1p-24;  // away from the infinities of 0 and 1
  const Tensor inside = minimum(maximum(u, least), 1 - least);
  const Tensor w = -log(4.0 * inside * (1.0 - inside));
  const Tensor centre =
      polynomial(w - 2.5, {2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06,
                           0.00021858087, -0.00125372503, -0.00417768164, 0.246640727, 1.50140941});
  const Tensor tail =
      polynomial(sqrt(maximum(w, 0.0)) - 3.0,
                 {-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                  -0.0076224613, 0.00943887047, 1.00167406, 2.83297682});
  return std::numbers::sqrt2 * (2.0 * inside - 1.0) * where(lt(w, 5.0), centre, tail);
}

}  // namespace fluxion
