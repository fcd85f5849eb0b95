#include "tests/oracles/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace fluxion::oracles {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

double largest(const std::vector<double>& values) {
  double result = 0;
  for (const double value : values) result = std::max(result, std::abs(value));
  return result;
}

}  // namespace

std::optional<std::string> difference(const HostTensor& got, const HostTensor& reference,
                                      const Tolerance& tolerance) {
  if (got.shape != reference.shape)
    return "shape " + to_string(got.shape) + ", reference " + to_string(reference.shape);
  const bool exact = reference.kind != HostTensor::Kind::floating;
  if (exact != (got.kind != HostTensor::Kind::floating))
    return "is floating where the reference is not, or the other way round";
  const double scale = largest(reference.values);
  double worst_ratio = -1, worst_error = 0, worst_bound = 0;
  std::size_t worst = 0;
  for (std::size_t i = 0; i < reference.values.size(); ++i) {
    const double expected = reference.values[i];
    const double bound =
        exact ? 0
              : tolerance.atol +
                    tolerance.rtol * (tolerance.elementwise ? std::abs(expected) : scale);
    const double error = std::abs(got.values[i] - expected);
    double ratio =
        bound > 0 ? error / bound : (error == 0 ? 0 : std::numeric_limits<double>::infinity());
    const double found = got.values[i];
    if (!std::isfinite(expected))
      ratio = found == expected || (std::isnan(found) && std::isnan(expected))
                  ? 0
                  : std::numeric_limits<double>::infinity();
    else if (!std::isfinite(found))
      ratio = std::numeric_limits<double>::infinity();
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      worst_error = error;
      worst_bound = bound;
      worst = i;
    }
  }
  if (worst_ratio <= 1) return std::nullopt;
  return "worst error " + number(worst_error) + ", tolerance " + number(worst_bound) +
         " (element " + std::to_string(worst) + " of " + to_string(reference.shape) + ": got " +
         number(got.values[worst]) + ", reference " + number(reference.values[worst]) + ")";
}

double InnerProducts::product(const HostTensor& given, const HostTensor& result) {
  const double scale = largest(result.values);
  double sum = 0;
  for (std::size_t i = 0; i < given.values.size() && i < result.values.size(); ++i) {
    sum += given.values[i] * result.values[i];
    const double bound =
        tolerance_.atol +
        tolerance_.rtol * (tolerance_.elementwise ? std::abs(result.values[i]) : scale);
    allowed_ += std::abs(given.values[i]) * bound;
  }
  return sum;
}

std::optional<std::string> InnerProducts::difference() const {
  const double error = std::abs(left_ - right_);
  // (False for NaN. An infinite derivative would allow anything.)
  if (std::isfinite(allowed_) && error <= allowed_) return std::nullopt;
  return "<cot, jvp> = " + number(left_) + " but <vjp, tan> = " + number(right_) +
         "; worst error " + number(error) + ", tolerance " + number(allowed_);
}

}  // namespace fluxion::oracles
