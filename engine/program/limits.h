// What a backend's kernels can hold.
#pragma once

#include <cstdint>

namespace fluxion {

// What one kernel may hold. The planner respects it, so that every kernel it makes can be lowered.
struct KernelLimits {
  bool fuses = true;  // false: one OpKernel per op
  int max_loads = 64;
  int max_stores = 32;
  int max_instructions = 256;
  int max_axes = 10;                      // of an iteration space
  std::int64_t max_row_elements = 65536;  // of a row that must be resident (softmax, layer norm)
  std::int64_t max_attention_head = 0;  // features up to which there are kernels for attention and
                                        // its derivatives; beyond, the expansion runs
};

}  // namespace fluxion
