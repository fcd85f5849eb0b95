// Whether a device computes what the reference does: one small check for each family of kernels,
// for `fluxion devices --report`. It finds drivers that compute wrongly; the tests of the backends
// are far more thorough.
#pragma once

#include <string>
#include <vector>

#include "engine/device.h"

namespace fluxion {

// The families in order: "map: arithmetic", "rows: softmax", "product", "attention", ...
const std::vector<std::string>& self_test_families();

struct SelfTestResult {
  bool passed = false;
  double error = 0, allowed = 0;  // largest difference, as a share of the largest element
  double seconds = 0;             // on the device, compiling included
  std::string problem{};          // why it did not pass; empty if it did
};

// Runs family `number` on the device and on `defining`, the reference backend. What a backend
// throws is the result's problem.
SelfTestResult self_test(std::size_t number, const Device& device, const Device& defining);

}  // namespace fluxion
