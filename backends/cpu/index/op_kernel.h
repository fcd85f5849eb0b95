// Runs OpKernel (engine/program/program.h): index ops, cumulative sums, sorting and random bits on
// whole contiguous tensors.
#pragma once

#include <cstddef>

#include "backends/cpu/runtime/parallel.h"
#include "backends/cpu/tape/tape_kernel.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

class OpRunner {
 public:
  // Throws Error for an op without a kernel here, DTypeError for a dtype that it can't compute.
  explicit OpRunner(OpKernel kernel);

  // The result does not depend on the number of threads: updates of one element are added in order.
  // `scratch` has scratch_bytes(pool.threads()) bytes, aligned to 64.
  void run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const;
  std::size_t scratch_bytes(int threads) const;

 private:
  using Function = void (*)(const OpKernel& kernel, std::byte* const* inputs, std::byte* output,
                            const ThreadPool& pool, std::byte* scratch);
  static Function find(const OpKernel& kernel);

  OpKernel kernel_;
  Function function_;
};

}  // namespace fluxion::cpu_backend
