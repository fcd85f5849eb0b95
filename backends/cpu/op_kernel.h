// Runs OpKernel (engine/program.h): index ops, cumulative sums and random bits on whole contiguous tensors.
#pragma once

#include <cstddef>

#include "backends/cpu/parallel.h"
#include "backends/cpu/tape_kernel.h"
#include "engine/program.h"

namespace fluxion::cpu_backend {

class OpRunner {
 public:
  // Throws Error for an op that has no kernel of its own here, DTypeError for a dtype that it can't compute.
  explicit OpRunner(OpKernel kernel);

  // The result does not depend on the number of threads: additions to one element happen in the order of the updates.
  void run(const CallMemory& memory, const ThreadPool& pool) const;

 private:
  using Function = void (*)(const OpKernel& kernel, std::byte* const* inputs, std::byte* output, const ThreadPool& pool);
  static Function find(const OpKernel& kernel);

  OpKernel kernel_;
  Function function_;
};

}  // namespace fluxion::cpu_backend
