#include "tests/random/values.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/op_examples.h"

namespace fluxion::testing {

double largest(const Values& values) {
  double result = 0;
  for (const double value : values)
    result = std::max(result, std::isfinite(value) ? std::abs(value) : 0);
  return result;
}

std::vector<Values> host(const Tensors& tensors) {
  Tensors present;
  for (const Tensor& tensor : tensors)
    if (tensor) present.push_back(tensor);
  eval(present);
  std::vector<Values> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor ? host_values(tensor) : Values());
  return result;
}

void require_equal(const std::string& what, const std::vector<Values>& got,
                   const std::vector<Values>& expected, double relative, const Values& slack) {
  if (got.size() != expected.size())
    throw Failure{what + ": " + std::to_string(got.size()) + " results, expected " +
                  std::to_string(expected.size())};
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i].size() != expected[i].size())
      throw Failure{std::string(what) + ": result " + std::to_string(i) + " has " +
                    std::to_string(got[i].size()) + " elements, expected " +
                    std::to_string(expected[i].size())};
    const double allowed = relative * (1 + largest(expected[i])) + (slack.empty() ? 0 : slack[i]);
    for (std::size_t k = 0; k < got[i].size(); ++k) {
      if (got[i][k] == expected[i][k] || std::abs(got[i][k] - expected[i][k]) <= allowed) continue;
      char line[200];
      std::snprintf(line, sizeof line,
                    ": element %zu of result %zu: got %.17g, expected %.17g (allowed %.3g)", k, i,
                    got[i][k], expected[i][k], allowed);
      throw Failure{what + line};
    }
  }
}

}  // namespace fluxion::testing
