// What a Vulkan device can do, as plain data: asked once, corrected for known driver bugs, and
// masked by tests.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "backends/vulkan/instance.h"
#include "backends/vulkan/kernel.h"
#include "engine/backend.h"

namespace fluxion::vulkan_backend {

enum class DeviceKind : std::uint8_t { discrete, integrated, virtual_gpu, software, other };
std::string_view to_string(DeviceKind kind);

struct DeviceFacts {
  // Who it is.
  std::string name, driver_name, driver_info;
  DeviceKind kind = DeviceKind::other;
  std::uint32_t vendor = 0, device = 0, driver = 0;  // driver: VkDriverId, 0: unknown
  std::uint32_t driver_version = 0, api_version = 0;
  std::array<std::uint8_t, VK_UUID_SIZE> cache_uuid{};

  // What kernels may use.
  ShaderTarget shaders;
  std::uint32_t min_subgroup_size = 0, max_subgroup_size = 0;
  std::uint32_t max_storage_buffers = 4;  // of a stage
  std::uint32_t max_push_bytes = 128;
  std::int64_t max_binding_bytes = std::int64_t{1} << 27;
  std::int64_t binding_alignment = 256;

  // What the runtime may use.
  std::int64_t max_allocation_bytes = std::int64_t{1} << 30;
  std::uint32_t max_allocations = 4096;
  bool unified_memory = false;  // the host reads and writes device memory in place
  bool timeline_semaphore = false;
  bool memory_budget = false;
  bool frees_when_submitting = false;  // pipelines that are destroyed wait for the next submission
  bool portability = false;            // VK_KHR_portability_subset must be enabled
  std::uint32_t queue_family = 0;
  std::uint32_t timestamp_bits = 0;
  double timestamp_seconds = 0;  // of one tick
  std::uint64_t memory_bytes = 0;

  // Of one block of memory: what is allocated at once, at most.
  std::int64_t block_bytes() const {
    return max_allocation_bytes / binding_alignment * binding_alignment;
  }

  // Of the quirk table: what was changed above, and why.
  std::vector<std::string> quirks;
  // Why the device can't be used at all; empty: it can.
  std::string refused;
};

class Enabled;

// Of a device that the application made, no more than it has `enabled`.
DeviceFacts facts_of(const Instance& instance, VkPhysicalDevice device,
                     const Enabled* enabled = nullptr);
// Whether the host should read and write a device's memory in place.
bool is_unified(const VkPhysicalDeviceMemoryProperties& memory, DeviceKind kind);
// Works around the known bugs of this driver.
void apply_quirks(DeviceFacts& facts);
// Software devices compile kernels for seconds: theirs have short code, unless the environment's
// FLUXION_VULKAN_KERNELS is "full"; with "short" every device's have. Throws DeviceError for
// another word.
void choose_kernels(DeviceFacts& facts);
// Less than `facts` says: the least that the profile asks for.
DeviceFacts least_facts(DeviceFacts facts);

// What the engine sees.
Capabilities capabilities_of(const DeviceFacts& facts);
// For people: name and value of everything that changes what runs.
std::vector<std::pair<std::string, std::string>> listed(const DeviceFacts& facts);

}  // namespace fluxion::vulkan_backend
