// The CPU backend's memory: buffers, and the arenas of calls in flight.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <utility>

#include "engine/backend.h"
#include "engine/platform/host_memory.h"

namespace fluxion::cpu_backend {

class MemoryPool {
 public:
  // Blocks by size. A block that is in use is a node without a map, so giving it back allocates
  // nothing.
  using Blocks = std::multimap<std::size_t, HostMemory>;

  // Memory, aligned to 64, that goes back to the pool. The pool must outlive it.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          node_(std::move(other.node_)),
          arena_(other.arena_) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (pool_) pool_->give(std::move(node_), arena_);
    }
    std::byte* data() const { return pool_ ? node_.mapped().get() : nullptr; }

   private:
    friend class MemoryPool;
    Lease(MemoryPool* pool, Blocks::node_type node, bool arena)
        : pool_(pool), node_(std::move(node)), arena_(arena) {}
    MemoryPool* pool_ = nullptr;
    Blocks::node_type node_;
    bool arena_ = false;
  };

  // At most `budget` bytes together, no_limit for as many as the system gives.
  explicit MemoryPool(std::size_t budget) : budget_(budget) {}

  // Sizes are rounded up, to an eighth of a power of two or a large page, whichever is less, so
  // that nearly equal buffers share blocks. Freed buffers wait for the next of their size; at most
  // as many bytes wait as were ever in use at once. Throws OutOfMemory, after everything that waits
  // was freed.
  Lease buffer(std::size_t bytes);
  // An arena for one call: one that rests, grown if it is too small, or a new one if all are in
  // use. So there are as many arenas as calls were ever in flight at once, whatever the programs.
  Lease arena(std::size_t bytes);

  MemoryUse in_use() const;
  // Frees what waits and what rests.
  void trim();
  std::size_t budget() const { return budget_; }

 private:
  static std::size_t rounded(std::size_t bytes);
  // Fresh memory, counted as `kind`.
  Blocks::node_type allocate(std::size_t bytes, std::size_t MemoryUse::*kind, const char* what);
  void give(Blocks::node_type node, bool arena) noexcept;
  // Moves what waits and what rests out of the pool, whose mutex is held.
  void take_kept(Blocks& waiting, Blocks& resting);

  const std::size_t budget_;
  mutable std::mutex mutex_;
  Blocks waiting_;  // buffers
  Blocks resting_;  // arenas
  MemoryUse use_;
  std::size_t waiting_bytes_ = 0, most_buffers_ = 0;
};

}  // namespace fluxion::cpu_backend
