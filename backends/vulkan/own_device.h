// A device that the application made: what it should have enabled, and what it has.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "backends/vulkan/api.h"
#include "backends/vulkan/features.h"
#include "backends/vulkan/vulkan.h"

namespace fluxion::vulkan_backend {

class Instance;

// The extension that must be enabled wherever it is offered, as the Vulkan specification says.
inline constexpr const char* portability_extension = "VK_KHR_portability_subset";

// The extensions that a physical device has.
class DeviceExtensions {
 public:
  DeviceExtensions(const InstanceFunctions& call, VkPhysicalDevice device);
  bool has(std::string_view name) const;

 private:
  std::vector<VkExtensionProperties> all_;
};

// Asks for the features that a physical device has; those of structures it does not know stay off.
void ask_features(const InstanceFunctions& call, VkPhysicalDevice device, std::uint32_t api_version,
                  const DeviceExtensions& extensions, DeviceFeatures& features);

// What an application's device was made with.
class Enabled {
 public:
  // Throws DeviceError unless `own` has all handles, a VkDeviceCreateInfo that makes the queue, and
  // says who else uses the queue.
  explicit Enabled(const OwnVulkan& own);

  bool has(std::string_view extension) const;
  // Of the features in the order of DeviceFeatures::named().
  bool has_feature(std::size_t number) const { return features_[number]; }
  std::uint32_t queue_family() const { return queue_family_; }

 private:
  void read_features(const VkDeviceCreateInfo& info);
  std::uint32_t queue_family_;
  std::vector<std::string> extensions_;
  std::array<bool, DeviceFeatures::count> features_{};
};

// What must be enabled on a device of this physical device and is not, by name; empty: nothing.
std::string missing(const Enabled& enabled, std::uint32_t api_version,
                    const DeviceExtensions& extensions);

}  // namespace fluxion::vulkan_backend
