// Random contractions and what they should give, by a plain loop in f64.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "tests/vulkan/gemm/host_memory.h"

namespace fluxion::testing {

enum class Epilogue : std::uint8_t {
  store,     // y_r = result r
  permuted,  // the same, each with its axes in an order of its own
  bias,      // y_r = result r * result 0 * scalar + bias[n], and a store of max(result 0, 0) beside
};

struct ContractionCase {
  std::int64_t batch = 1, m = 1, n = 1, k = 1;
  std::int32_t results = 1;
  int terms = 1;
  bool plain_views = true;
  Epilogue epilogue = Epilogue::store;
  DType lhs = DType::f32, rhs = DType::f32, stored = DType::f32;
};
std::ostream& operator<<(std::ostream& out, const ContractionCase& c);

struct Contraction {
  ContractionCase shape;
  HostMemory memory;  // whose program has the kernel
  std::int32_t bias = -1;

  const ContractKernel& kernel() const {
    return std::get<ContractKernel>(memory.program.kernels.front());
  }
  static constexpr double scalar = 0.75;  // the program's only one
};

// Half of the later terms share an operand with an earlier one, as primal and tangent of a layer
// do.
Contraction random_contraction(const ContractionCase& c, std::uint32_t seed);

// "" if the outputs, read back from a device, are right, else the first that is not. A sum of K
// products may err by 2 sqrt(K) eps |A||B|, as sums of it in the epilogue then may.
std::string first_wrong(const Contraction& contraction);

}  // namespace fluxion::testing
