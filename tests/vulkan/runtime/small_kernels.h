// Kernels of a few lines, and calls of them, for tests of the runtime.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backends/vulkan/kernel.h"
#include "tests/vulkan/run_work.h"

namespace fluxion::testing {

// Buffer 1 = 2 * buffer 0, as f32.
vulkan_backend::KernelWork doubling(std::uint32_t count);
// Each of `steps` dispatches doubles in place what buffer 0 holds.
vulkan_backend::KernelWork doubling_in_place(std::uint32_t count, int steps);

// Copies the four words of run-time scalar `index` to buffer 0.
vulkan_backend::KernelWork scalars_to(std::uint32_t index);

// 0, 1, 2, .. as f32; and whether these are 0, 2, 4, ..
Words counting(std::uint32_t count);
bool is_doubled(const Words& words, float factor = 2);

}  // namespace fluxion::testing
