// Results on the host, and how they are compared.
#pragma once

#include <string>
#include <vector>

#include "tests/op_examples.h"

namespace fluxion::testing {

using Values = std::vector<double>;

// What a check throws.
struct Failure {
  std::string text;
};

// The largest finite magnitude.
double largest(const Values& values);

// All values, evaluated together; none for an empty tensor.
std::vector<Values> host(const Tensors& tensors);

// Throws Failure where |got - expected| > relative (1 + largest |expected| of the tensor) + slack.
void require_equal(const std::string& what, const std::vector<Values>& got,
                   const std::vector<Values>& expected, double relative, const Values& slack = {});

}  // namespace fluxion::testing
