// Guard bands: bytes around a buffer that nothing may write. For tests: software drivers hide
// accesses out of bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backends/vulkan/memory.h"

namespace fluxion::vulkan_backend {

inline constexpr std::int64_t guard_bytes = 256;

// Fills memory, guards and what lies between, with a pattern that is NaN as f32.
void fill_guarded(const Place& place);
// Whether the pattern is whole outside of bytes [begin, end) of the place.
bool guards_are_whole(const Place& place, std::int64_t begin, std::int64_t end);

}  // namespace fluxion::vulkan_backend
