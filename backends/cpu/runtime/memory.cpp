#include "backends/cpu/runtime/memory.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/error.h"
#include "engine/platform/machine.h"

namespace fluxion::cpu_backend {

std::size_t MemoryPool::rounded(std::size_t bytes) {
  if (bytes > no_limit / 2) return no_limit / 2;  // refused by the system
  std::size_t step = host_memory_alignment;
  while (step * 16 <= bytes && step < huge_page_bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

MemoryPool::Blocks::node_type MemoryPool::allocate(std::size_t bytes, std::size_t MemoryUse::*kind,
                                                   const char* what) {
  Blocks block;
  block.emplace(bytes, HostMemory());
  Blocks::node_type node = block.extract(block.begin());
  for (const bool trimmed : {false, true}) {
    std::size_t used = 0;
    bool within = false;
    {
      Blocks waiting, resting;  // freed after the mutex was let go
      std::lock_guard lock(mutex_);
      // With the check in one piece: what others give back in between would count again.
      if (trimmed) take_kept(waiting, resting);
      used = use_.total();
      within = bytes <= budget_ && used <= budget_ - bytes;
      if (within) use_.*kind += bytes;  // before the memory is there, so that others see it
    }
    if (within) {
      node.mapped() = allocate_host_memory(bytes);
      if (node.mapped()) return node;
      std::lock_guard lock(mutex_);
      use_.*kind -= bytes;
    } else if (trimmed) {
      throw OutOfMemory("cpu: " + std::to_string(bytes) + " bytes for " + what +
                        " exceed the budget: " + std::to_string(used) + " of " +
                        std::to_string(budget_) + " bytes are in use");
    }
  }
  throw OutOfMemory("cpu: can't allocate " + std::to_string(bytes) + " bytes for " + what);
}

MemoryPool::Lease MemoryPool::buffer(std::size_t bytes) {
  bytes = rounded(bytes);
  {
    std::lock_guard lock(mutex_);
    if (const auto found = waiting_.find(bytes); found != waiting_.end()) {
      Blocks::node_type node = waiting_.extract(found);
      waiting_bytes_ -= bytes;
      use_.kept -= bytes;
      use_.buffers += bytes;
      most_buffers_ = std::max(most_buffers_, use_.buffers);
      return {this, std::move(node), false};
    }
  }
  Blocks::node_type node = allocate(bytes, &MemoryUse::buffers, "a buffer");
  std::lock_guard lock(mutex_);
  most_buffers_ = std::max(most_buffers_, use_.buffers);
  return {this, std::move(node), false};
}

MemoryPool::Lease MemoryPool::arena(std::size_t bytes) {
  if (bytes == 0) return {};
  bytes = rounded(bytes);
  Blocks::node_type small;  // freed before the larger one is made
  {
    std::lock_guard lock(mutex_);
    const auto found = resting_.lower_bound(bytes);
    if (!resting_.empty()) {
      Blocks::node_type node =
          resting_.extract(found != resting_.end() ? found : std::prev(resting_.end()));
      use_.kept -= node.key();
      if (node.key() >= bytes) {
        use_.arenas += node.key();
        return {this, std::move(node), true};
      }
      small = std::move(node);
    }
  }
  small = {};
  return {this, allocate(bytes, &MemoryUse::arenas, "the temporaries of a program"), true};
}

void MemoryPool::give(Blocks::node_type node, bool arena) noexcept {
  const std::size_t bytes = node.key();
  std::lock_guard lock(mutex_);
  if (arena) {
    use_.arenas -= bytes;
    use_.kept += bytes;
    resting_.insert(std::move(node));
    return;
  }
  use_.buffers -= bytes;
  if (use_.buffers + waiting_bytes_ + bytes > most_buffers_) return;
  use_.kept += bytes;
  waiting_bytes_ += bytes;
  waiting_.insert(std::move(node));
}

MemoryUse MemoryPool::in_use() const {
  std::lock_guard lock(mutex_);
  return use_;
}

void MemoryPool::take_kept(Blocks& waiting, Blocks& resting) {
  waiting.swap(waiting_);
  resting.swap(resting_);
  use_.kept = 0;
  waiting_bytes_ = 0;
}

void MemoryPool::trim() {
  Blocks waiting, resting;  // freed after the mutex was let go
  std::lock_guard lock(mutex_);
  take_kept(waiting, resting);
}

}  // namespace fluxion::cpu_backend
