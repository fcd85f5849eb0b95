// The part of the op kernels that is compiled once per instruction set.
#pragma once

#include <cstdint>

namespace fluxion::cpu_backend {

// Blocks of engine/graph/philox.h drawn side by side.
inline constexpr std::int64_t philox_width = 16;

// Writes groups [begin, end) of 4 philox_width words each: group g holds blocks g philox_width, ..
void random_words(std::int64_t begin, std::int64_t end, std::uint32_t stream, std::uint32_t domain,
                  std::uint32_t key0, std::uint32_t key1, std::uint32_t* out);

}  // namespace fluxion::cpu_backend
