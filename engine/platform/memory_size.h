// Numbers of bytes as sizes in this machine's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "engine/error.h"

namespace fluxion {

// Whether addresses can count so many bytes: not 2 GiB or more where they have 32 bits.
constexpr bool fits_memory(std::int64_t bytes) {
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max());
  return static_cast<std::uint64_t>(bytes) <= most;
}

// Throws OutOfMemory, which says that `what` takes so many bytes, if they don't fit.
inline std::size_t memory_size(std::int64_t bytes, const char* what) {
  if (!fits_memory(bytes))
    throw OutOfMemory(std::string(what) + " takes " + std::to_string(bytes) +
                      " bytes, more than this system's addresses can count");
  return static_cast<std::size_t>(bytes);
}

}  // namespace fluxion
