// Memory in blocks: an arena need not be one allocation (KernelLimits::block_bytes).
#pragma once

#include <cstdint>

#include "engine/divide.h"

namespace fluxion {

// The least offset, from `offset` on, at which so many bytes, at most a block, lie in one block.
inline std::int64_t within_block(std::int64_t offset, std::int64_t bytes, std::int64_t block) {
  const bool in_one = bytes == 0 || offset / block == (offset + bytes - 1) / block;
  return in_one ? offset : round_up(offset, block);
}

}  // namespace fluxion
