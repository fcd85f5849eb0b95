// Tensors on any GPU with a Vulkan driver. The loader is opened at run time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/device.h"

namespace fluxion {

// A device that the application made itself. Handles are those of vulkan.h, as plain pointers; none
// is ever destroyed, and all must live as long as the device, its tensors and what was compiled for
// it.
struct OwnVulkan {
  void (*get_instance_proc_addr)() = nullptr;  // PFN_vkGetInstanceProcAddr
  void* instance = nullptr;                    // VkInstance
  std::uint32_t api_version = 0;               // VkApplicationInfo::apiVersion of it
  void* physical_device = nullptr;             // VkPhysicalDevice
  void* device = nullptr;                      // VkDevice
  // The VkDeviceCreateInfo that the device was made with, or one that says the same: its queues,
  // extensions and features. Read during the call alone.
  const void* device_info = nullptr;
  std::uint32_t queue_family = 0, queue_index = 0;  // of the queue that the work goes to
  // Called around each use of the queue, from any thread, by one thread at a time. Without them
  // nobody else may use the queue, or wait for the whole device, during a call that uses this
  // device: say so with `queue_is_unshared`.
  std::function<void()> lock{}, unlock{};
  bool queue_is_unshared = false;
};

// What a VkDevice should have enabled, of what this physical device has.
struct VulkanNeed {
  std::string name;       // "timelineSemaphore", "VK_EXT_memory_budget"
  std::string structure;  // what has the feature; empty: it is an extension
  bool required = false;  // it is refused without; others make kernels better
};
// Uses get_instance_proc_addr, instance, api_version and physical_device alone. Throws DeviceError
// if the physical device can't be used, or lacks what is required.
std::vector<VulkanNeed> vulkan_needs(const OwnVulkan& own);

struct VulkanOptions {
  // Which device: its number in vulkan_devices(). Without it, the environment's choice: the number,
  // or a part of the name, in FLUXION_VULKAN_DEVICE. Without that, the first discrete GPU, else the
  // first integrated one; a software device is only used when it is chosen.
  std::optional<int> device{};
  // Compiled kernels are kept here between runs; an empty path keeps nothing. Default: the folder
  // in FLUXION_VULKAN_CACHE, which may be empty, else fluxion/ in the user's cache folder.
  std::optional<std::filesystem::path> cache{};
  // Bytes of compiled kernels that are kept for programs to come, in memory and in that folder's
  // file. When there are more, the driver's cache begins anew; kernels in use stay.
  std::size_t cache_budget = std::size_t{256} << 20;
  // Told how many kernels of a program the driver has compiled, of how many that were not compiled
  // before: 0 first, then each. Calls come from the threads that compile, one at a time for each
  // program; an exception ends the compilation.
  std::function<void(std::size_t done, std::size_t all)> compiling{};
  // Bytes of device memory, and of host memory for copies, that may be taken from the driver at
  // once. They are taken in blocks, the smallest of 1 MiB.
  std::size_t memory_budget = no_limit;
  // Whether tile shapes of matrix products are measured when the first large one is compiled, once
  // for each device and driver, for about a second. What is found changes speed, never results.
  // Default: FLUXION_VULKAN_TUNE (on or off), else on for GPUs whose cache is kept.
  std::optional<bool> tune{};
  // The application's own device in place of one that is opened. `device` must be empty then.
  std::optional<OwnVulkan> own{};
};

// Throws DeviceError if there is no loader, driver or device of this number, or if the device lacks
// what every kernel needs.
Device vulkan(const VulkanOptions& options = {});

// What there is, without opening it.
struct VulkanDeviceInfo {
  std::string name, driver;        // "AMD Radeon RX 6800", "radv Mesa 24.1"
  std::string kind;                // "discrete", "integrated", "virtual", "software" or "other"
  std::uint64_t memory_bytes = 0;  // of its largest heap
  std::vector<std::pair<std::string, std::string>> capabilities;  // those that are used, by name
  std::vector<std::string> quirks;  // known driver bugs that are worked around
  std::string refused;              // why it can't be used; empty: it can
  bool preferred = false;           // whether vulkan() without a number opens it
};
// Throws DeviceError if there is no loader or no driver.
std::vector<VulkanDeviceInfo> vulkan_devices();

// The speed of products of f32 matrices with each tile shape that a device can run, in about
// `seconds`: for reports. Empty for a device of another backend.
struct VulkanTileSpeed {
  std::string
      tile;  // "128x64x16/8x8": a workgroup's rows, columns and depth, an invocation's share
  double flops_per_second = 0;
};
std::vector<VulkanTileSpeed> vulkan_tile_speeds(const Device& device, double seconds);

}  // namespace fluxion
