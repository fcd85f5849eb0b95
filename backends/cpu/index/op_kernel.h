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
  // Throws Error for an op that has no kernel of its own here, DTypeError for a dtype that it can't
  // compute.
  explicit OpRunner(OpKernel kernel);

  // The result does not depend on the number of threads: additions to one element happen in the
  // order of the updates. `scratch` is 64-byte aligned memory of scratch_bytes() that nobody else
  // uses meanwhile.
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
