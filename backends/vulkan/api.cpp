#include "backends/vulkan/api.h"

#include "engine/error.h"

namespace fluxion::vulkan_backend {

std::string to_string(VkResult result) {
  switch (result) {
#define FLUXION_VULKAN_RESULT(name) \
  case name:                        \
    return #name;
    FLUXION_VULKAN_RESULT(VK_SUCCESS)
    FLUXION_VULKAN_RESULT(VK_NOT_READY)
    FLUXION_VULKAN_RESULT(VK_TIMEOUT)
    FLUXION_VULKAN_RESULT(VK_INCOMPLETE)
    FLUXION_VULKAN_RESULT(VK_ERROR_OUT_OF_HOST_MEMORY)
    FLUXION_VULKAN_RESULT(VK_ERROR_OUT_OF_DEVICE_MEMORY)
    FLUXION_VULKAN_RESULT(VK_ERROR_INITIALIZATION_FAILED)
    FLUXION_VULKAN_RESULT(VK_ERROR_DEVICE_LOST)
    FLUXION_VULKAN_RESULT(VK_ERROR_MEMORY_MAP_FAILED)
    FLUXION_VULKAN_RESULT(VK_ERROR_LAYER_NOT_PRESENT)
    FLUXION_VULKAN_RESULT(VK_ERROR_EXTENSION_NOT_PRESENT)
    FLUXION_VULKAN_RESULT(VK_ERROR_FEATURE_NOT_PRESENT)
    FLUXION_VULKAN_RESULT(VK_ERROR_INCOMPATIBLE_DRIVER)
    FLUXION_VULKAN_RESULT(VK_ERROR_TOO_MANY_OBJECTS)
    FLUXION_VULKAN_RESULT(VK_ERROR_FRAGMENTED_POOL)
    FLUXION_VULKAN_RESULT(VK_ERROR_OUT_OF_POOL_MEMORY)
    FLUXION_VULKAN_RESULT(VK_ERROR_FRAGMENTATION)
    FLUXION_VULKAN_RESULT(VK_ERROR_UNKNOWN)
#undef FLUXION_VULKAN_RESULT
    default:
      return "VkResult " + std::to_string(static_cast<int>(result));
  }
}

void throw_failure(VkResult result, std::string_view doing) {
  const std::string text =
      "vulkan: can't " + std::string(doing) + ": " + vulkan_backend::to_string(result);
  switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
    case VK_ERROR_FRAGMENTED_POOL:
    case VK_ERROR_FRAGMENTATION:
    case VK_ERROR_TOO_MANY_OBJECTS:
      throw OutOfMemory(text);
    case VK_ERROR_DEVICE_LOST: {
      DeviceError lost(text + "; the device was lost: open it again");
      lost.state_aftermath(Aftermath::device_dead);
      throw lost;
    }
    default:
      throw DeviceError(text);
  }
}

namespace {

[[noreturn]] void throw_missing(const char* name) {
  throw DeviceError("vulkan: the driver has no function " + std::string(name));
}

}  // namespace

InstanceFunctions load_instance(PFN_vkGetInstanceProcAddr get, VkInstance instance) {
  InstanceFunctions call;
#define FLUXION_VULKAN_LOAD(name) \
  call.name = reinterpret_cast<PFN_vk##name>(get(instance, "vk" #name));
#define FLUXION_VULKAN_REQUIRE(name) \
  if (!call.name) throw_missing("vk" #name);
  FLUXION_VULKAN_INSTANCE_FUNCTIONS(FLUXION_VULKAN_LOAD)
  FLUXION_VULKAN_OPTIONAL_INSTANCE_FUNCTIONS(FLUXION_VULKAN_LOAD)
  FLUXION_VULKAN_INSTANCE_FUNCTIONS(FLUXION_VULKAN_REQUIRE)
#undef FLUXION_VULKAN_LOAD
  return call;
}

DeviceFunctions load_device(PFN_vkGetDeviceProcAddr get, VkDevice device) {
  DeviceFunctions call;
#define FLUXION_VULKAN_LOAD(name) \
  call.name = reinterpret_cast<PFN_vk##name>(get(device, "vk" #name));
  FLUXION_VULKAN_DEVICE_FUNCTIONS(FLUXION_VULKAN_LOAD)
  FLUXION_VULKAN_OPTIONAL_DEVICE_FUNCTIONS(FLUXION_VULKAN_LOAD)
  FLUXION_VULKAN_DEVICE_FUNCTIONS(FLUXION_VULKAN_REQUIRE)
#undef FLUXION_VULKAN_LOAD
#undef FLUXION_VULKAN_REQUIRE
  if (!call.GetSemaphoreCounterValue)
    call.GetSemaphoreCounterValue = call.GetSemaphoreCounterValueKHR;
  if (!call.WaitSemaphores) call.WaitSemaphores = call.WaitSemaphoresKHR;
  return call;
}

}  // namespace fluxion::vulkan_backend
