// Threads for the metrics.
#pragma once

#include <cstdint>
#include <functional>

namespace fluxion {

// Calls body(block) for every block in [0, blocks) on up to `threads` threads (0: one per usable
// core) and returns when all are done. Which thread runs which block is not defined: a block writes
// to places of its own, and the caller adds them up in order, so that results do not depend on
// `threads`. The first exception of a body is rethrown.
void parallel_blocks(std::int64_t blocks, int threads,
                     const std::function<void(std::int64_t block)>& body);

}  // namespace fluxion
