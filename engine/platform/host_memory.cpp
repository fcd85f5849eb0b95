#include "engine/platform/host_memory.h"

#include <algorithm>

#include "engine/platform/machine.h"

namespace fluxion {

HostMemory allocate_host_memory(std::size_t bytes) noexcept {
  constexpr std::size_t large = 2 * huge_page_bytes;
  const std::align_val_t aligned{bytes >= large ? huge_page_bytes : host_memory_alignment};
  void* memory = ::operator new(std::max<std::size_t>(bytes, 1), aligned, std::nothrow);
  if (memory != nullptr && bytes >= large)
    advise_huge_pages(memory, bytes / huge_page_bytes * huge_page_bytes);
  return HostMemory(static_cast<std::byte*>(memory), {aligned});
}

}  // namespace fluxion
