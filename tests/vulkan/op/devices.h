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

// What the guard bands around their buffers have seen since the last call; empty: nothing.
std::string writes_outside();

}  // namespace fluxion::testing
