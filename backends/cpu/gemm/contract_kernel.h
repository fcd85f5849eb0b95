// Runs ContractKernel (engine/program/program.h): packed, blocked GEMM with an epilogue tape on
// each finished tile.
#pragma once

#include <cstddef>
#include <memory>

#include "backends/cpu/runtime/parallel.h"
#include "backends/cpu/tape/tape_kernel.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

class ContractRunner {
 public:
  explicit ContractRunner(ContractKernel kernel);
  ~ContractRunner();
  ContractRunner(ContractRunner&&) noexcept;

  // The result does not depend on the number of threads. `scratch` has
  // scratch_bytes(pool.threads()) bytes, aligned to 64.
  void run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const;
  std::size_t scratch_bytes(int threads) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fluxion::cpu_backend
