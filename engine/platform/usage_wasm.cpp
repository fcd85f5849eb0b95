#include <emscripten/heap.h>

#include <ctime>

#include "engine/platform/usage.h"

namespace fluxion {

std::optional<double> machine_busy_seconds() { return std::nullopt; }

// Since the program began: the system does not say how much of it was this program's.
double process_busy_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

std::optional<ResidentMemory> resident_memory() {
  const std::uint64_t heap = emscripten_get_heap_size();
  return ResidentMemory{.now = heap, .peak = heap, .own = heap};
}

}  // namespace fluxion
