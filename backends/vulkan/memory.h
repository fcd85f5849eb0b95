// Device memory: large blocks, each one VkBuffer, which buffers share.
//
// All work runs in one queue, in order, and each submission begins with a barrier. So memory that
// work in flight still uses may be given to later work at once: what is free remembers the point
// after which the device no longer uses it, and only the host, or giving it back to the driver,
// must wait for that point.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "backends/vulkan/api.h"
#include "backends/vulkan/capabilities.h"
#include "backends/vulkan/fault.h"
#include "backends/vulkan/queue.h"
#include "engine/backend.h"

namespace fluxion::vulkan_backend {

// Bytes of a block.
struct Place {
  std::uint64_t block = 0;  // its number, which is never used again; 0: no bytes
  VkBuffer buffer = VK_NULL_HANDLE;
  std::int64_t offset = 0, bytes = 0;
  std::byte* host = nullptr;  // where the host sees them, if it does
  bool operator==(const Place&) const = default;
  // Whether they are of a buffer that the application made.
  bool imported() const { return block >= first_imported; }
  static constexpr std::uint64_t first_imported = std::uint64_t{1} << 63;
};

// Bytes [offset, offset + bytes) of it; nothing if they are none.
inline Place part(const Place& whole, std::int64_t offset, std::int64_t bytes) {
  if (bytes == 0) return {};
  return {whole.block, whole.buffer, whole.offset + offset, bytes,
          whole.host ? whole.host + offset : nullptr};
}

// Copies `bytes` from one place to another, which do not overlap.
void record_copy(const DeviceFunctions& call, VkCommandBuffer commands, const Place& from,
                 std::size_t from_at, const Place& to, std::size_t to_at, std::size_t bytes);

class Memory;

// Owns a place.
class MemoryRange {
 public:
  MemoryRange() = default;
  MemoryRange(MemoryRange&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)),
        place_(other.place_),
        busy_until_(other.busy_until_) {}
  MemoryRange& operator=(MemoryRange&& other) noexcept;
  ~MemoryRange();

  const Place& place() const { return place_; }
  // The point after which the device no longer uses it: of its former owner at first.
  std::uint64_t busy_until() const { return busy_until_; }
  void used_until(std::uint64_t point) { busy_until_ = std::max(busy_until_, point); }

 private:
  friend class Memory;
  MemoryRange(Memory* memory, const Place& place, std::uint64_t busy_until)
      : memory_(memory), place_(place), busy_until_(busy_until) {}
  Memory* memory_ = nullptr;
  Place place_;
  std::uint64_t busy_until_ = 0;
};

// The workspace of calls. Calls run one after another, so all of them share one. A driver may not
// allocate all of it at once: it consists of blocks of `block_bytes`, of which the last may be
// smaller.
class Arena {
 public:
  Arena(std::vector<MemoryRange> blocks, std::int64_t block_bytes)
      : blocks_(std::move(blocks)), block_bytes_(block_bytes) {}
  ~Arena() {
    for (MemoryRange& block : blocks_) block.used_until(last_use_);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  std::span<const MemoryRange> blocks() const { return blocks_; }
  std::int64_t bytes() const {
    std::int64_t sum = 0;
    for (const MemoryRange& block : blocks_) sum += block.place().bytes;
    return sum;
  }
  // Bytes [offset, offset + bytes) of it, which lie in one block; nothing if they are none.
  Place place(std::int64_t offset, std::int64_t bytes) const {
    if (bytes == 0) return {};
    return part(blocks_[static_cast<std::size_t>(offset / block_bytes_)].place(),
                offset % block_bytes_, bytes);
  }
  std::uint64_t last_use() const { return last_use_; }
  void used_until(std::uint64_t point) {
    std::uint64_t seen = last_use_;
    while (seen < point && !last_use_.compare_exchange_weak(seen, point)) {
    }
  }

 private:
  std::vector<MemoryRange> blocks_;
  std::int64_t block_bytes_;
  std::atomic<std::uint64_t> last_use_{0};
};

// The memory types, of those `allowed`, that buffers may come from, the best first. `unified`: the
// host sees them.
std::vector<std::uint32_t> buffer_types(const VkPhysicalDeviceMemoryProperties& properties,
                                        std::uint32_t allowed, bool unified);

class Memory {
 public:
  // Takes at most `budget` bytes from the driver at once, for all purposes together.
  Memory(VkDevice device, const DeviceFunctions& call,
         const VkPhysicalDeviceMemoryProperties& properties, const DeviceFacts& facts, Queue& queue,
         std::size_t budget, std::shared_ptr<Faults> faults);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // Memory of a buffer. Frees what is kept, waits for work, and tries slower memory before it
  // throws OutOfMemory.
  MemoryRange buffer(std::size_t bytes);
  // Memory that the host sees and no work uses, for copies. Waits for earlier copies rather than
  // take much more than 64 MiB.
  MemoryRange staging(std::size_t bytes);
  // The arena, grown to at least `bytes`. Hold it until the work that uses it was submitted.
  std::shared_ptr<Arena> arena(std::size_t bytes);

  // Bytes of a buffer of the application's, until they are released. All that are imported of one
  // buffer at the same time have one number, which is never used again after them.
  Place import(VkBuffer buffer, std::int64_t offset, std::int64_t bytes);
  void release(const Place& imported) noexcept;

  MemoryUse in_use();
  // Gives everything back that no work uses.
  void trim();
  // The heap that buffers come from, and its bytes.
  std::uint32_t heap() const;
  std::uint64_t heap_bytes() const;
  std::size_t budget() const { return budget_; }
  // Bytes taken from the driver.
  std::uint64_t taken_bytes();

 private:
  friend class MemoryRange;
  struct Hole {
    std::int64_t offset, bytes;
    std::uint64_t busy_until;
  };
  struct Block {
    std::uint64_t number;
    VkDeviceMemory memory;
    VkBuffer buffer;
    std::int64_t bytes;
    std::byte* host;
    std::uint32_t type;
    bool single;              // for one large buffer
    std::size_t live = 0;     // ranges
    std::vector<Hole> holes;  // by offset; adjacent ones are merged
  };
  struct Pool {
    std::vector<std::uint32_t> types;  // memory types, the best first
    std::vector<std::unique_ptr<Block>> blocks;
    bool host = false;  // mapped
    std::int64_t used = 0, most_used = 0, taken = 0;
  };

  MemoryRange take(Pool& pool, std::size_t bytes, const char* what);
  // From the blocks there are. `mutex_` is held.
  bool find(Pool& pool, std::int64_t bytes, std::uint64_t reached, MemoryRange& range);
  MemoryRange cut(Pool& pool, Block& block, std::size_t hole, std::int64_t bytes);
  Block* make_block(Pool& pool, std::int64_t bytes, bool single, std::uint32_t type);
  void free_block(Block& block);
  // Gives empty blocks back until at most `keep` bytes of them are left. `mutex_` is held.
  void free_empty(Pool& pool, std::int64_t keep);
  void give(const Place& place, std::uint64_t busy_until) noexcept;
  std::int64_t block_bytes(const Pool& pool) const;

  const VkDevice device_;
  const DeviceFunctions& call_;
  const VkPhysicalDeviceMemoryProperties properties_;
  const std::int64_t most_bytes_;  // of one allocation
  const std::size_t most_blocks_;
  const std::size_t budget_;  // bytes that blocks may have together
  Queue& queue_;
  const std::shared_ptr<Faults> faults_;

  std::mutex mutex_;
  Pool buffers_, staging_;
  std::uint64_t next_number_ = 1;
  std::shared_ptr<Arena> arena_;
  struct Import {
    VkBuffer buffer;
    std::uint64_t number;
    std::size_t live;
  };
  std::vector<Import> imports_;
  std::uint64_t next_import_ = Place::first_imported;
};

}  // namespace fluxion::vulkan_backend
