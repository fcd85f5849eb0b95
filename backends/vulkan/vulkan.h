// Tensors on any GPU with a Vulkan driver. The loader is opened at run time.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/device.h"

namespace fluxion {

struct VulkanOptions {
  // Which device: its number in vulkan_devices(). Without it, the environment's choice: the number,
  // or a part of the name, in FLUXION_VULKAN_DEVICE. Without that, the first discrete GPU, else the
  // first integrated one; a software device is only used when it is chosen.
  std::optional<int> device{};
  // Compiled kernels are kept here between runs; an empty path keeps nothing. Default: the folder
  // in FLUXION_VULKAN_CACHE, which may be empty, else fluxion/ in the user's cache folder.
  std::optional<std::filesystem::path> cache{};
  // Told how many kernels of a program the driver has compiled, of how many that were not compiled
  // before: 0 first, then each. Calls come from the threads that compile, one at a time for each
  // program; an exception ends the compilation.
  std::function<void(std::size_t done, std::size_t all)> compiling{};
  // Bytes of device memory, and of host memory for copies, that may be taken from the driver at
  // once. They are taken in blocks, the smallest of 1 MiB.
  std::size_t memory_budget = no_limit;
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
