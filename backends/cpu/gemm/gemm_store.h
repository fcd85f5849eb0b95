// Epilogues that do nothing but store: the product is then written in place, and the tape never
// runs.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/cpu/gemm/gemm_operand.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

// Where a result goes: element (b, i, j) to offset + batch(b) + i * row_stride + j.
struct DirectStore {
  std::int32_t buffer;
  std::int64_t offset;
  GemmAxis batch;
  std::int64_t row_stride;
};

// One per result; empty if the epilogue computes, converts, or stores with columns apart.
std::vector<DirectStore> direct_stores(const ContractKernel& kernel);

}  // namespace fluxion::cpu_backend
