// Counts the program's allocations, so that `fluxion bench` can say what a step makes of them.
#pragma once

#include <cstdint>

namespace fluxion::cli {

// Calls of operator new so far, in all threads. The program replaces operator new with one that
// counts.
std::uint64_t allocation_count();

}  // namespace fluxion::cli
