// Devices by name, as in --device and configuration files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/device.h"

namespace fluxion {

// The parts of a name: "cpu", "cpu:4", "reference", "vulkan", "vulkan:1".
struct DeviceName {
  std::string backend;
  int threads = 0;              // of the CPU; 0: one per core
  std::optional<int> number{};  // of a Vulkan device
};

// All names, in one line for messages.
std::string device_names();

struct OpenOptions {
  // Told how many of a program's kernels are compiled, of how many, by devices whose driver
  // compiles them (VulkanOptions::compiling).
  std::function<void(std::size_t done, std::size_t all)> compiling{};
  std::size_t memory_budget = no_limit;  // bytes of buffers and temporaries together
  // Of Vulkan: see VulkanOptions::cache.
  std::optional<std::filesystem::path> kernel_cache{};
};

// Both throw DeviceError, which lists all names, for any other name. open_device() also throws it
// if there is no such device, or this build lacks its backend.
DeviceName parse_device_name(std::string_view name);
Device open_device(std::string_view name, const OpenOptions& options = {});

// What this machine has, without opening it.
struct ListedDevice {
  std::string name;                                                 // "vulkan:0"
  std::string description;                                          // "AMD Radeon RX 6800"
  std::string kind, driver;                                         // "discrete"; "radv Mesa 24.1"
  std::uint64_t memory_bytes = 0;                                   // of its own; 0: the host's
  std::vector<std::pair<std::string, std::string>> capabilities{};  // name, value
  std::vector<std::string> quirks{};  // known driver bugs that are worked around
  std::string refused{};              // why it can't be used; empty: it can
  bool preferred = false;             // what the name without a number opens
};
struct DeviceList {
  std::vector<ListedDevice> devices;
  std::string without_vulkan;  // why no Vulkan device is listed; empty if some are
};
DeviceList list_devices();

// The speed of products of f32 matrices with each tile shape that a Vulkan device can run, in about
// `seconds`. Empty for other devices.
struct ListedTileSpeed {
  std::string tile;
  double flops_per_second = 0;
};
std::vector<ListedTileSpeed> list_tile_speeds(const Device& device, double seconds);

}  // namespace fluxion
