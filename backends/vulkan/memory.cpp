#include "backends/vulkan/memory.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>

#include "engine/divide.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

namespace {

constexpr std::int64_t step = 256;  // every place starts and ends at a multiple of it
constexpr std::int64_t smallest_block = std::int64_t{1} << 20,
                       largest_block = std::int64_t{1} << 26;
constexpr std::int64_t most_staging = std::int64_t{1} << 26;  // in flight

// To an eighth of a power of two, so that nearly equal large buffers share blocks.
std::int64_t rounded(std::int64_t bytes) {
  std::int64_t unit = step;
  while (unit * 16 <= bytes) unit *= 2;
  return round_up(bytes, unit);
}

// Types whose properties contain `wanted`, those with fewer `unwanted` ones first.
std::vector<std::uint32_t> types_with(const VkPhysicalDeviceMemoryProperties& properties,
                                      std::uint32_t allowed,
                                      std::initializer_list<VkMemoryPropertyFlags> wanted,
                                      VkMemoryPropertyFlags unwanted) {
  std::vector<std::uint32_t> result;
  for (const VkMemoryPropertyFlags all : wanted)
    for (const bool strict : {true, false})
      for (std::uint32_t i = 0; i < properties.memoryTypeCount; ++i) {
        const VkMemoryPropertyFlags flags = properties.memoryTypes[i].propertyFlags;
        // (AMD's wants a feature that isn't enabled, and isn't cached on the device.)
        constexpr VkMemoryPropertyFlags odd =
            VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT | VK_MEMORY_PROPERTY_PROTECTED_BIT |
            VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD;
        if (!(allowed >> i & 1) || (flags & odd) || (flags & all) != all) continue;
        if (strict && (flags & unwanted)) continue;
        if (std::find(result.begin(), result.end(), i) == result.end()) result.push_back(i);
      }
  return result;
}

constexpr VkMemoryPropertyFlags local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
                                cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
                                visible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                          VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;

std::uint64_t heap_of(const VkPhysicalDeviceMemoryProperties& properties, std::uint32_t type) {
  return properties.memoryHeaps[properties.memoryTypes[type].heapIndex].size;
}

constexpr VkBufferUsageFlags usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                     VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                     VK_BUFFER_USAGE_TRANSFER_DST_BIT;

VkBufferCreateInfo buffer_of(std::int64_t bytes) {
  auto info = structure<VkBufferCreateInfo>(VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO);
  info.size = static_cast<VkDeviceSize>(bytes);
  info.usage = usage;
  info.sharingMode = VK_SHARING_MODE_EXCLUSIVE;
  return info;
}

}  // namespace

void record_copy(const DeviceFunctions& call, VkCommandBuffer commands, const Place& from,
                 std::size_t from_at, const Place& to, std::size_t to_at, std::size_t bytes) {
  const VkBufferCopy region{static_cast<VkDeviceSize>(from.offset) + from_at,
                            static_cast<VkDeviceSize>(to.offset) + to_at, bytes};
  call.CmdCopyBuffer(commands, from.buffer, to.buffer, 1, &region);
}

// ---- MemoryRange

MemoryRange& MemoryRange::operator=(MemoryRange&& other) noexcept {
  if (this == &other) return *this;
  if (memory_) memory_->give(place_, busy_until_);
  memory_ = std::exchange(other.memory_, nullptr);
  place_ = other.place_;
  busy_until_ = other.busy_until_;
  return *this;
}

MemoryRange::~MemoryRange() {
  if (memory_) memory_->give(place_, busy_until_);
}

// ---- Memory

std::vector<std::uint32_t> buffer_types(const VkPhysicalDeviceMemoryProperties& properties,
                                        std::uint32_t allowed, bool unified) {
  if (!unified) return types_with(properties, allowed, {local, 0}, visible);
  std::vector<std::uint32_t> types =
      types_with(properties, allowed,
                 {local | visible | cached, local | visible, visible | cached, visible}, 0);
  // A window of 256 MiB, as some drivers have beside most of the memory, comes last.
  std::uint64_t largest = 0;
  for (const std::uint32_t type : types) largest = std::max(largest, heap_of(properties, type));
  std::ranges::stable_partition(
      types, [&](std::uint32_t type) { return heap_of(properties, type) >= largest / 4; });
  return types;
}

Memory::Memory(VkDevice device, const DeviceFunctions& call,
               const VkPhysicalDeviceMemoryProperties& properties, const DeviceFacts& facts,
               Queue& queue, std::size_t budget, std::shared_ptr<Faults> faults)
    : device_(device),
      call_(call),
      properties_(properties),
      most_bytes_(facts.block_bytes()),
      most_blocks_(facts.max_allocations),
      budget_(budget),
      queue_(queue),
      faults_(std::move(faults)) {
  const VkBufferCreateInfo info = buffer_of(step);
  VkBuffer probe = VK_NULL_HANDLE;
  check(call_.CreateBuffer(device_, &info, nullptr, &probe), "make a buffer");
  VkMemoryRequirements needs{};
  call_.GetBufferMemoryRequirements(device_, probe, &needs);
  call_.DestroyBuffer(device_, probe, nullptr);

  buffers_.host = facts.unified_memory;
  buffers_.types = buffer_types(properties_, needs.memoryTypeBits, facts.unified_memory);
  staging_.host = true;
  staging_.types =
      types_with(properties_, needs.memoryTypeBits, {visible | cached, visible}, local);
  if (buffers_.types.empty() || staging_.types.empty())
    throw DeviceError("vulkan: the device has no memory for storage buffers");
}

Memory::~Memory() {
  arena_.reset();
  for (Pool* pool : {&buffers_, &staging_})
    for (const auto& block : pool->blocks) free_block(*block);
}

std::int64_t Memory::block_bytes(const Pool& pool) const {
  const auto eighth = static_cast<std::uint64_t>(std::max<std::int64_t>(pool.taken / 8, 1));
  return std::min(
      std::clamp(static_cast<std::int64_t>(std::bit_ceil(eighth)), smallest_block, largest_block),
      most_bytes_);
}

Memory::Block* Memory::make_block(Pool& pool, std::int64_t bytes, bool single, std::uint32_t type) {
  std::size_t blocks = 0;
  std::uint64_t in_heap = 0, taken = 0;
  const std::uint32_t heap = properties_.memoryTypes[type].heapIndex;
  for (const Pool* each : {&buffers_, &staging_})
    for (const auto& block : each->blocks) {
      ++blocks;
      taken += static_cast<std::uint64_t>(block->bytes);
      if (properties_.memoryTypes[block->type].heapIndex == heap)
        in_heap += static_cast<std::uint64_t>(block->bytes);
    }
  // A driver may give more than there is, and fail when it is used.
  const std::uint64_t heap_size = properties_.memoryHeaps[heap].size;
  if (blocks >= most_blocks_ || in_heap > heap_size ||
      static_cast<std::uint64_t>(bytes) > heap_size - in_heap || taken > budget_ ||
      static_cast<std::uint64_t>(bytes) > budget_ - taken)
    return nullptr;
  auto block = std::make_unique<Block>();
  block->number = next_number_;
  block->bytes = bytes;
  block->type = type;
  block->single = single;
  block->holes.reserve(8);
  pool.blocks.reserve(pool.blocks.size() + 1);
  const auto failed = [&](VkResult result) {
    free_block(*block);
    if (result == VK_ERROR_DEVICE_LOST) throw_failure(result, "allocate memory");
    return nullptr;
  };
  const VkBufferCreateInfo info = buffer_of(bytes);
  if (const VkResult result = call_.CreateBuffer(device_, &info, nullptr, &block->buffer);
      result != VK_SUCCESS)
    return failed(result);
  VkMemoryRequirements needs{};
  call_.GetBufferMemoryRequirements(device_, block->buffer, &needs);
  auto memory = structure<VkMemoryAllocateInfo>(VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO);
  memory.allocationSize = needs.size;
  memory.memoryTypeIndex = type;
  const VkResult allocated = faults_ && faults_->memory.due()
                                 ? VK_ERROR_OUT_OF_DEVICE_MEMORY
                                 : call_.AllocateMemory(device_, &memory, nullptr, &block->memory);
  if (allocated != VK_SUCCESS) return failed(allocated);
  if (const VkResult result = call_.BindBufferMemory(device_, block->buffer, block->memory, 0);
      result != VK_SUCCESS)
    return failed(result);
  if (pool.host &&
      (properties_.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT) != 0) {
    void* mapped = nullptr;
    if (const VkResult result =
            call_.MapMemory(device_, block->memory, 0, VK_WHOLE_SIZE, 0, &mapped);
        result != VK_SUCCESS)
      return failed(result);
    block->host = static_cast<std::byte*>(mapped);
  }
  block->holes.push_back({0, bytes, 0});
  ++next_number_;
  pool.taken += bytes;
  pool.blocks.push_back(std::move(block));
  return pool.blocks.back().get();
}

void Memory::free_block(Block& block) {
  if (block.buffer) call_.DestroyBuffer(device_, block.buffer, nullptr);
  if (block.memory) call_.FreeMemory(device_, block.memory, nullptr);  // unmaps it
  block.buffer = VK_NULL_HANDLE;
  block.memory = VK_NULL_HANDLE;
}

void Memory::free_empty(Pool& pool, std::int64_t keep) {
  const std::uint64_t reached = queue_.done();
  std::int64_t kept = 0;
  std::erase_if(pool.blocks, [&](const std::unique_ptr<Block>& block) {
    if (block->live > 0) return false;
    const bool idle = block->holes.front().busy_until <= reached;
    if (!idle || kept + block->bytes <= keep) {
      kept += block->bytes;
      return false;
    }
    pool.taken -= block->bytes;
    free_block(*block);
    return true;
  });
}

MemoryRange Memory::cut(Pool& pool, Block& block, std::size_t index, std::int64_t bytes) {
  // give() must not fail: as many holes as live ranges and one more fit without allocating.
  block.holes.reserve(block.live + 3);
  Hole& hole = block.holes[index];
  Place place{block.number, block.buffer, hole.offset, bytes,
              block.host ? block.host + hole.offset : nullptr};
  const std::uint64_t busy_until = hole.busy_until;
  hole.offset += bytes;
  hole.bytes -= bytes;
  if (hole.bytes == 0) block.holes.erase(block.holes.begin() + static_cast<std::ptrdiff_t>(index));
  ++block.live;
  pool.used += bytes;
  pool.most_used = std::max(pool.most_used, pool.used);
  return {this, place, busy_until};
}

bool Memory::find(Pool& pool, std::int64_t bytes, std::uint64_t reached, MemoryRange& range) {
  // The smallest hole that is large enough; of equal ones the one that is idle first.
  Block* best = nullptr;
  std::size_t index = 0;
  for (const auto& block : pool.blocks) {
    if (block->single && bytes * 2 < block->bytes) continue;
    for (std::size_t i = 0; i < block->holes.size(); ++i) {
      const Hole& hole = block->holes[i];
      if (hole.bytes < bytes || hole.busy_until > reached) continue;
      const auto order = [](const Hole& each) { return std::pair(each.bytes, each.busy_until); };
      if (best && order(best->holes[index]) <= order(hole)) continue;
      best = block.get();
      index = i;
    }
  }
  if (best) range = cut(pool, *best, index, bytes);
  return best != nullptr;
}

MemoryRange Memory::take(Pool& pool, std::size_t wanted, const char* what) {
  const auto refuse = [&](const std::string& why) -> OutOfMemory {
    return OutOfMemory("vulkan: can't allocate " + std::to_string(wanted) + " bytes for " + what +
                       ": " + why);
  };
  if (wanted > static_cast<std::size_t>(most_bytes_))
    throw refuse("the driver allocates at most " + std::to_string(most_bytes_) + " at once");
  const std::int64_t bytes = std::max(round_up(static_cast<std::int64_t>(wanted), step), step);
  constexpr std::uint64_t any = std::numeric_limits<std::uint64_t>::max();
  // Staging is for the host, which would have to wait.
  const auto usable = [&] { return pool.host && &pool == &staging_ ? queue_.done() : any; };
  // 0: what there is; 1: after giving back what is kept; 2: after waiting for all work.
  for (int attempt = 0; attempt < 3; ++attempt) {
    std::shared_ptr<Arena> resting;  // given back without the mutex
    std::unique_lock lock(mutex_);
    if (attempt > 0) {
      // Whoever needs it holds it.
      resting = std::exchange(arena_, nullptr);
      lock.unlock();
      resting.reset();
      if (attempt == 2) queue_.wait(queue_.submitted());
      lock.lock();
      free_empty(buffers_, 0);
      free_empty(staging_, 0);
    }
    MemoryRange range;
    if (find(pool, bytes, usable(), range)) return range;
    const std::size_t types = attempt < 2 ? 1 : pool.types.size();
    for (std::size_t i = 0; i < types; ++i) {
      const std::int64_t shared = block_bytes(pool);
      const bool single = bytes * 4 > shared;
      const std::int64_t most = std::min(rounded(bytes), most_bytes_);
      Block* block = make_block(pool, single ? most : shared, single, pool.types[i]);
      // A smaller block may fit where a large one does not.
      if (!block && attempt > 0) block = make_block(pool, bytes, true, pool.types[i]);
      if (block) return cut(pool, *block, 0, bytes);
    }
  }
  throw refuse(budget_ == no_limit ? "the device is out of memory"
                                   : "the device is out of memory, or its budget of " +
                                         std::to_string(budget_) + " bytes is used up");
}

MemoryRange Memory::buffer(std::size_t bytes) { return take(buffers_, bytes, "a buffer"); }

MemoryRange Memory::staging(std::size_t bytes) {
  const std::uint64_t in_flight = queue_.submitted();
  for (;;) {
    queue_.collect();  // copies that have arrived give theirs back
    const std::uint64_t reached = queue_.done();
    {
      std::lock_guard lock(mutex_);
      if (staging_.taken + static_cast<std::int64_t>(std::min<std::size_t>(bytes, most_staging)) <=
          most_staging)
        break;
      MemoryRange range;
      const std::int64_t whole = std::max(round_up(static_cast<std::int64_t>(bytes), step), step);
      if (find(staging_, whole, reached, range)) return range;
    }
    // What was in flight has arrived, and no place became free: it is all in use, or taken by
    // copies that came later, for which others need not wait for ever.
    if (reached >= in_flight) break;
    queue_.wait(reached + 1);
  }
  return take(staging_, bytes, "a copy between host and device");
}

std::shared_ptr<Arena> Memory::arena(std::size_t bytes) {
  std::shared_ptr<Arena> small;
  {
    std::lock_guard lock(mutex_);
    if (arena_ && static_cast<std::size_t>(arena_->bytes()) >= bytes) return arena_;
    small = std::exchange(arena_, nullptr);
  }
  small.reset();  // its memory may be part of the larger one's
  std::vector<MemoryRange> blocks;
  for (auto left = static_cast<std::int64_t>(bytes); left > 0; left -= most_bytes_)
    blocks.push_back(take(buffers_, static_cast<std::size_t>(std::min(rounded(left), most_bytes_)),
                          "the temporaries of a program"));
  auto made = std::make_shared<Arena>(std::move(blocks), most_bytes_);
  std::lock_guard lock(mutex_);
  // Another thread may have made one meanwhile: the larger one stays.
  if (!arena_ || arena_->bytes() < made->bytes()) {
    small = std::exchange(arena_, made);
  }
  return made;
}

void Memory::give(const Place& place, std::uint64_t busy_until) noexcept {
  std::lock_guard lock(mutex_);
  for (Pool* pool : {&buffers_, &staging_})
    for (const auto& block : pool->blocks) {
      if (block->number != place.block) continue;
      auto& holes = block->holes;
      auto next = std::lower_bound(
          holes.begin(), holes.end(), place.offset,
          [](const Hole& hole, std::int64_t offset) { return hole.offset < offset; });
      const bool joins_next = next != holes.end() && next->offset == place.offset + place.bytes;
      const bool joins_last =
          next != holes.begin() && std::prev(next)->offset + std::prev(next)->bytes == place.offset;
      if (joins_last) {
        Hole& last = *std::prev(next);
        last.bytes += place.bytes;
        last.busy_until = std::max(last.busy_until, busy_until);
        if (joins_next) {
          last.bytes += next->bytes;
          last.busy_until = std::max(last.busy_until, next->busy_until);
          holes.erase(next);
        }
      } else if (joins_next) {
        next->offset = place.offset;
        next->bytes += place.bytes;
        next->busy_until = std::max(next->busy_until, busy_until);
      } else {
        holes.insert(next, {place.offset, place.bytes, busy_until});
      }
      --block->live;
      pool->used -= place.bytes;
      if (block->live == 0) free_empty(*pool, std::max(pool->most_used, smallest_block));
      return;
    }
}

Place Memory::import(VkBuffer buffer, std::int64_t offset, std::int64_t bytes) {
  std::lock_guard lock(mutex_);
  auto found = std::find_if(imports_.begin(), imports_.end(),
                            [&](const Import& each) { return each.buffer == buffer; });
  if (found == imports_.end()) {
    imports_.push_back({buffer, next_import_++, 0});
    found = std::prev(imports_.end());
  }
  ++found->live;
  return {found->number, buffer, offset, bytes, nullptr};
}

void Memory::release(const Place& imported) noexcept {
  std::lock_guard lock(mutex_);
  std::erase_if(imports_,
                [&](Import& each) { return each.number == imported.block && --each.live == 0; });
}

MemoryUse Memory::in_use() {
  std::lock_guard lock(mutex_);
  MemoryUse use;
  use.buffers = static_cast<std::size_t>(buffers_.used);
  if (arena_) {
    const auto bytes = static_cast<std::size_t>(arena_->bytes());
    use.buffers -= bytes;
    const bool resting = arena_.use_count() == 1 && arena_->last_use() <= queue_.done();
    (resting ? use.kept : use.arenas) += bytes;
  }
  for (const Pool* pool : {&buffers_, &staging_})
    for (const auto& block : pool->blocks)
      if (block->live == 0) use.kept += static_cast<std::size_t>(block->bytes);
  return use;
}

void Memory::trim() {
  std::shared_ptr<Arena> resting;
  {
    std::lock_guard lock(mutex_);
    resting = std::exchange(arena_, nullptr);
  }
  resting.reset();
  std::lock_guard lock(mutex_);
  free_empty(buffers_, 0);
  free_empty(staging_, 0);
}

std::uint32_t Memory::heap() const {
  return properties_.memoryTypes[buffers_.types.front()].heapIndex;
}

std::uint64_t Memory::heap_bytes() const { return heap_of(properties_, buffers_.types.front()); }

std::uint64_t Memory::taken_bytes() {
  std::lock_guard lock(mutex_);
  return static_cast<std::uint64_t>(buffers_.taken + staging_.taken);
}

}  // namespace fluxion::vulkan_backend
