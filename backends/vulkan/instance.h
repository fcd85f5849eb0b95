// A Vulkan instance and its devices.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/vulkan/api.h"
#include "backends/vulkan/library.h"
#include "backends/vulkan/vulkan.h"

namespace fluxion::vulkan_backend {

struct InstanceOptions {
  // Checks each call with the Khronos validation layer, and memory accesses for hazards.
  // DeviceError if the layer is not installed.
  bool validate = false;
  // Takes what the layer has to say, from any thread; without it, validation has no effect.
  std::function<void(std::string_view)> message{};
};

class Instance {
 public:
  // Throws DeviceError if there is no loader, or no driver.
  explicit Instance(const InstanceOptions& options = {});
  // The application's, with its physical device alone. Throws DeviceError if a handle is missing.
  explicit Instance(const OwnVulkan& own);
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  const InstanceFunctions& call() const { return call_; }
  // The version of Vulkan that it was made for: devices offer no more.
  std::uint32_t api_version() const { return api_version_; }
  // In the driver's order.
  const std::vector<VkPhysicalDevice>& devices() const { return devices_; }

 private:
  void destroy();

  std::optional<SharedLibrary> library_;  // the application's instance has one already
  const std::function<void(std::string_view)> message_;
  std::uint32_t api_version_ = VK_API_VERSION_1_0;
  VkInstance instance_ = VK_NULL_HANDLE;
  VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
  InstanceFunctions call_;
  std::vector<VkPhysicalDevice> devices_;
};

}  // namespace fluxion::vulkan_backend
