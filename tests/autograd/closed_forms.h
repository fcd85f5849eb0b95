// Functions of one number with their derivatives up to the fourth, in closed form: what
// test_special_points.cpp compares with.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace fluxion::testing {

// f, f', f'', f''', f'''' at a point.
using Jet = std::array<double, 5>;

inline constexpr double factorials[] = {1, 1, 2, 6, 24};
inline constexpr double pi = std::numbers::pi;

inline Jet operator*(double a, Jet jet) {
  for (double& each : jet) each *= a;
  return jet;
}
inline Jet operator+(Jet a, const Jet& b) {
  for (std::size_t k = 0; k < a.size(); ++k) a[k] += b[k];
  return a;
}
// Leibniz' rule.
inline Jet operator*(const Jet& a, const Jet& b) {
  Jet product{};
  for (std::size_t n = 0; n < product.size(); ++n)
    for (std::size_t k = 0; k <= n; ++k)
      product[n] += factorials[n] / (factorials[k] * factorials[n - k]) * a[k] * b[n - k];
  return product;
}
// The derivatives of outer(inner(x)); `outer` has those of the outer function at inner(x). Sums the
// powers of inner(x + h) - inner(x) as polynomials in h.
inline Jet composed(const Jet& outer, Jet inner) {
  Jet rest = inner, power{1}, result{};
  rest[0] = 0;
  for (std::size_t k = 0; k < outer.size(); ++k) {
    result = result + (outer[k] / factorials[k]) * power;
    power = power * rest;
  }
  return result;
}

// ---- at x

inline Jet variable(double x) { return {x, 1}; }

inline Jet exponential(double x) {
  const double y = std::exp(x);
  return {y, y, y, y, y};
}
inline Jet power_of(double x, double p) {  // x^p
  Jet jet;
  double factor = 1;
  for (std::size_t k = 0; k < jet.size(); ++k, factor *= p - static_cast<double>(k) + 1)
    jet[k] = factor == 0 ? 0 : factor * std::pow(x, p - static_cast<double>(k));
  return jet;
}
inline Jet logarithm(double x) {
  return {std::log(x), 1 / x, -1 / (x * x), 2 / (x * x * x), -6 / (x * x * x * x)};
}
inline Jet sine(double x) {
  return {std::sin(x), std::cos(x), -std::sin(x), -std::cos(x), std::sin(x)};
}
inline Jet cosine(double x) {
  return {std::cos(x), -std::sin(x), -std::cos(x), std::sin(x), std::cos(x)};
}
inline Jet hyperbolic_tangent(double x) {
  const double y = std::tanh(x), s = std::pow(std::cosh(x), -2.0);
  return {y, s, -2 * y * s, s * (4 * y * y - 2 * s), 16 * y * s * s - 8 * y * y * y * s};
}
inline Jet logistic(double x) {  // sigmoid
  const double s = 1 / (1 + std::exp(-x)), n = 1 / (1 + std::exp(x)), slope = s * n,
               odd = -std::tanh(x / 2);
  return {s, slope, slope * odd, slope * (1 - 6 * slope), slope * odd * (1 - 12 * slope)};
}
inline Jet logistic_slope(double x) {
  const Jet s = logistic(x);
  // The fifth derivative of sigmoid.
  const double fifth = s[1] * (1 - 30 * s[1] + 120 * s[1] * s[1]);
  return {s[1], s[2], s[3], s[4], fifth};
}
inline Jet log_of_one_plus_exp(double x) {  // softplus
  const Jet s = logistic(x);
  return {std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))), s[0], s[1], s[2], s[3]};
}
// height e^(-x^2) as the derivative of a function with the value `value`.
inline Jet integral_of_bell(double x, double value, double height) {
  const double g = height * std::exp(-x * x);
  return {value, g, -2 * x * g, (4 * x * x - 2) * g, (12 * x - 8 * x * x * x) * g};
}
inline Jet error_function(double x) {
  return integral_of_bell(x, std::erf(x), 2 * std::numbers::inv_sqrtpi);
}
inline Jet complementary_error_function(double x) {
  return integral_of_bell(x, std::erfc(x), -2 * std::numbers::inv_sqrtpi);
}
inline Jet gelu_by_erf(double x) {
  const double g = std::exp(-x * x / 2) / std::sqrt(2 * pi);
  const Jet normal{std::erfc(-x / std::numbers::sqrt2) / 2, g, -x * g, (x * x - 1) * g,
                   (3 * x - x * x * x) * g};
  return variable(x) * normal;
}
inline Jet gelu_by_tanh(double x) {
  const double slope = std::sqrt(8 / pi), cubic = slope * 0.044715;
  const Jet inner{x * (slope + cubic * x * x), slope + 3 * cubic * x * x, 6 * cubic * x, 6 * cubic};
  return variable(x) * composed(logistic(inner[0]), inner);
}
inline Jet length(double x, double other) {  // hypot, other > 0
  const Jet square{x * x + other * other, 2 * x, 2};
  return composed(power_of(square[0], 0.5), square);
}
inline Jet arc_tangent(double x) {
  const Jet square{1 + x * x, 2 * x, 2};
  const Jet slope = composed(power_of(square[0], -1), square);
  return {std::atan(x), slope[0], slope[1], slope[2], slope[3]};
}

}  // namespace fluxion::testing
