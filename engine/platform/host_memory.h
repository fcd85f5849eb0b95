// Memory for bytes by the million.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace fluxion {

inline constexpr std::size_t host_memory_alignment = 64;

struct HostMemoryDelete {
  std::align_val_t alignment{};
  void operator()(std::byte* memory) const { ::operator delete(memory, alignment); }
};
using HostMemory = std::unique_ptr<std::byte, HostMemoryDelete>;

// Memory of undefined content, aligned to host_memory_alignment, on large pages where it is large:
// a process that fills it meets hundreds of times fewer page faults. Empty if the system has none
// left.
HostMemory allocate_host_memory(std::size_t bytes) noexcept;

}  // namespace fluxion
