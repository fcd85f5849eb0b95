#include "tests/vulkan/op/devices.h"

#include <mutex>
#include <utility>

#include "tests/vulkan/run_work.h"

namespace fluxion::testing {

namespace {

using vulkan_backend::DeviceFacts;

void add(std::vector<OpDevice>& devices, const std::string& name,
         const vulkan_backend::DeviceOptions& options) {
  if (const std::optional<Device> device = software_vulkan(options))
    devices.push_back({name, *device});
}

struct Seen {
  std::mutex mutex;
  std::string text;
};
Seen& seen() {
  static Seen all;
  return all;
}

}  // namespace

const std::vector<OpDevice>& op_devices() {
  static const std::vector<OpDevice> devices = [] {
    std::vector<OpDevice> all;
    add(all, "all that the driver offers, with guard bands",
        {.guards = [](std::string_view message) {
          const std::lock_guard lock(seen().mutex);
          seen().text += std::string(message) + "\n";
        }});
    add(all, "the least of the profile, and folded dispatches", {.adjust = [](DeviceFacts& facts) {
          facts = least_facts(facts);
          facts.shaders.max_groups = 64;
        }});
    return all;
  }();
  return devices;
}

std::string writes_outside() {
  const std::lock_guard lock(seen().mutex);
  return std::exchange(seen().text, {});
}

}  // namespace fluxion::testing
