// Runs attention, its dual and its backward (OpKernel, engine/program/program.h) without storing
// the [queries, keys] matrix.
#pragma once

#include <cstddef>
#include <memory>

#include "backends/cpu/runtime/parallel.h"
#include "backends/cpu/tape/tape_kernel.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

// The most features per head that these kernels are meant for (KernelLimits::max_attention_head).
// They compute larger heads too, but not from the first-level cache.
inline constexpr std::int64_t max_attention_head = 256;

class AttentionRunner {
 public:
  // Throws Error for another op, DTypeError for a dtype other than f32 and f64.
  explicit AttentionRunner(OpKernel kernel);
  ~AttentionRunner();
  AttentionRunner(AttentionRunner&&) noexcept;

  // The result does not depend on the number of threads. `scratch` has
  // scratch_bytes(pool.threads()) bytes, aligned to 64.
  void run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const;
  std::size_t scratch_bytes(int threads) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fluxion::cpu_backend
