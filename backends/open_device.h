// Devices by name: what --device and a configuration file say.
#pragma once

#include <string>
#include <string_view>

#include "engine/device.h"

namespace fluxion {

// A device as it is named: "cpu", "cpu:4", "reference".
struct DeviceName {
  std::string backend;
  int threads = 0;  // of the CPU; 0: one per core
};

// The names there are, in one line.
std::string device_names();

// Both throw DeviceError, which lists the names there are, for any other.
DeviceName parse_device_name(std::string_view name);
Device open_device(std::string_view name);

}  // namespace fluxion
