// The devices on which the ops are tested.
#pragma once

#include <string>
#include <vector>

#include "engine/device.h"

namespace fluxion::testing {

struct OpDevice {
  std::string name;
  Device device;
};
// Empty if there is no Vulkan driver.
const std::vector<OpDevice>& op_devices();

}  // namespace fluxion::testing
