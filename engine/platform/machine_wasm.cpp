// WebAssembly: one processor, a heap with a limit, and no disk that says how large it is.
#include <emscripten/heap.h>
#include <malloc.h>

#include "engine/platform/machine.h"

namespace fluxion {

int usable_cpus() { return 1; }

std::optional<std::uint64_t> available_memory_bytes() {
  const struct mallinfo heap = ::mallinfo();
  const std::uint64_t most = emscripten_get_heap_max();
  const auto used = static_cast<std::uint64_t>(static_cast<unsigned>(heap.uordblks));
  return most > used ? most - used : 0;
}

void release_freed_memory() {}

// The heap never shrinks.
std::optional<std::uint64_t> peak_memory_bytes() { return emscripten_get_heap_size(); }

std::optional<std::uint64_t> free_disk_bytes(const std::filesystem::path&) { return std::nullopt; }

void advise_huge_pages(void*, std::size_t) {}

}  // namespace fluxion
