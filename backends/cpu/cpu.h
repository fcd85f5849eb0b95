// The CPU backend: oneTBB or std::thread for threads, Highway for SIMD with run-time dispatch.
#pragma once

#include "engine/device.h"

namespace fluxion {

struct CpuOptions {
  int threads = 0;  // 0: one per core that this process may use
  std::size_t memory_budget = no_limit;  // bytes of buffers and temporaries together
};

// A device of its own: tensors of two devices don't mix. Throws Error for a negative thread count.
Device cpu(const CpuOptions& options = {});

}  // namespace fluxion
