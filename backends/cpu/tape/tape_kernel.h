// Runs expression tapes (engine/program/program.h) on the CPU: instruction by instruction over
// blocks that stay in the caches of one core.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "backends/cpu/runtime/parallel.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

// The buffers and scalars of one call.
struct CallMemory {
  std::span<std::byte* const> buffers;  // by buffer number of the program
  std::span<const double> scalars;
};

class TapeRunner {
 public:
  explicit TapeRunner(Tape tape);
  ~TapeRunner();
  TapeRunner(TapeRunner&&) noexcept;

  // Runs the whole iteration space, in parallel where that pays. The result does not depend on the
  // number of threads. `scratch` has scratch_bytes(pool.threads()) bytes, aligned to 64.
  void run(const CallMemory& memory, const ThreadPool& pool, std::byte* scratch) const;
  std::size_t scratch_bytes(int threads) const;

  // Runs the epilogue of a contraction (a tape without reduced axes) at the points [begin, begin +
  // count) of the row-major iteration space, on the calling thread. results[r] points at `count`
  // values (f32 or f64, the contraction's dtype) of result r. `scratch` has point_scratch_bytes()
  // bytes, aligned to 64.
  void run_points(std::int64_t begin, std::int64_t count, const CallMemory& memory,
                  std::span<const void* const> results, std::byte* scratch) const;
  std::size_t point_scratch_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fluxion::cpu_backend
