// check_derivatives: tests the derivatives of a function. The project tests its own ops with it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

struct DerivativeCheck {
  // |jvp - central difference| / (1 + |central difference|), largest over outputs
  double jvp_error = 0;
  // |<u, Jv> - <J'u, v>| / (1 + |<u, Jv>|)
  double adjoint_error = 0;
  bool passed = false;
  std::string message;  // what failed, with numbers; empty if passed
};

struct DerivativeCheckOptions {
  std::uint64_t seed = 0;   // of the random directions
  double step = 1e-3;       // of the fourth-order central difference
  double tolerance = 1e-6;  // of jvp_error
  double adjoint_tolerance = 1e-10;
};

// Compares the jvp of f along random directions with a fourth-order central difference, and checks
// the identity <u, Jv> = <J'u, v>. Varies the f64 inputs and keeps the others fixed. Throws
// DTypeError if no input or no output is f64: outputs of other types are not checked.
DerivativeCheck check_derivatives(
    const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& f,
    const std::vector<Tensor>& inputs, const DerivativeCheckOptions& options = {});

}  // namespace fluxion
