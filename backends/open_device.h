// Devices by name, as in --device and configuration files.
#pragma once

#include <cstdint>
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

// Both throw DeviceError, which lists all names, for any other name. open_device() also throws it
// if there is no such device, or this build lacks its backend.
DeviceName parse_device_name(std::string_view name);
Device open_device(std::string_view name);

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

}  // namespace fluxion
