// Devices by name, as in --device and configuration files.
#pragma once

#include <string>
#include <string_view>

#include "engine/device.h"

namespace fluxion {

// The parts of a name: "cpu", "cpu:4", "reference".
struct DeviceName {
  std::string backend;
  int threads = 0;  // of the CPU; 0: one per core
};

// All names, in one line for messages.
std::string device_names();

// Both throw DeviceError, which lists all names, for any other name.
DeviceName parse_device_name(std::string_view name);
Device open_device(std::string_view name);

}  // namespace fluxion
