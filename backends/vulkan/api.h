// Vulkan's functions, loaded at run time, and its results as errors.
#pragma once

#include <string>
#include <string_view>

#ifndef VK_NO_PROTOTYPES
#define VK_NO_PROTOTYPES
#endif
#include <vulkan/vulkan_core.h>

namespace fluxion::vulkan_backend {

// ---- results

std::string to_string(VkResult result);  // "VK_ERROR_DEVICE_LOST"
// "doing" completes "vulkan: can't ..". Out of memory is OutOfMemory; a lost device is a
// DeviceError that says so; anything else a DeviceError.
[[noreturn]] void throw_failure(VkResult result, std::string_view doing);
inline void check(VkResult result, std::string_view doing) {
  if (result != VK_SUCCESS) throw_failure(result, doing);
}

// A zeroed structure of this type.
template <class Structure>
Structure structure(VkStructureType type) {
  Structure result{};
  result.sType = type;
  return result;
}

// ---- functions

// Functions that every instance or device has, and those of extensions, which may be null.
// clang-format off
#define FLUXION_VULKAN_INSTANCE_FUNCTIONS(of)                                                  \
  of(DestroyInstance) of(EnumeratePhysicalDevices) of(EnumerateDeviceExtensionProperties)      \
  of(GetPhysicalDeviceProperties) of(GetPhysicalDeviceProperties2)                             \
  of(GetPhysicalDeviceFeatures2) of(GetPhysicalDeviceMemoryProperties)                         \
  of(GetPhysicalDeviceMemoryProperties2) of(GetPhysicalDeviceQueueFamilyProperties)            \
  of(CreateDevice) of(GetDeviceProcAddr)
#define FLUXION_VULKAN_OPTIONAL_INSTANCE_FUNCTIONS(of)                                         \
  of(CreateDebugUtilsMessengerEXT) of(DestroyDebugUtilsMessengerEXT)
#define FLUXION_VULKAN_DEVICE_FUNCTIONS(of)                                                    \
  of(DestroyDevice) of(DeviceWaitIdle) of(GetDeviceQueue) of(QueueSubmit)                      \
  of(AllocateMemory) of(FreeMemory) of(MapMemory)                                              \
  of(CreateBuffer) of(DestroyBuffer) of(BindBufferMemory) of(GetBufferMemoryRequirements)      \
  of(CreateFence) of(DestroyFence) of(GetFenceStatus) of(WaitForFences)                        \
  of(CreateSemaphore) of(DestroySemaphore)                                                     \
  of(CreateQueryPool) of(DestroyQueryPool) of(GetQueryPoolResults)                             \
  of(CreateShaderModule) of(DestroyShaderModule)                                               \
  of(CreatePipelineCache) of(DestroyPipelineCache) of(GetPipelineCacheData)                    \
  of(MergePipelineCaches) of(CreateComputePipelines) of(DestroyPipeline)                       \
  of(CreatePipelineLayout) of(DestroyPipelineLayout)                                           \
  of(CreateDescriptorSetLayout) of(DestroyDescriptorSetLayout)                                 \
  of(CreateDescriptorPool) of(DestroyDescriptorPool) of(AllocateDescriptorSets)                \
  of(UpdateDescriptorSets)                                                                     \
  of(CreateCommandPool) of(DestroyCommandPool) of(ResetCommandPool) of(AllocateCommandBuffers) \
  of(BeginCommandBuffer) of(EndCommandBuffer)                                                  \
  of(CmdBindPipeline) of(CmdBindDescriptorSets) of(CmdDispatch) of(CmdDispatchBase)            \
  of(CmdPushConstants)                                                                         \
  of(CmdPipelineBarrier) of(CmdCopyBuffer) of(CmdUpdateBuffer) of(CmdFillBuffer)               \
  of(CmdResetQueryPool) of(CmdWriteTimestamp)
#define FLUXION_VULKAN_OPTIONAL_DEVICE_FUNCTIONS(of)                                           \
  of(GetSemaphoreCounterValue) of(WaitSemaphores)                                              \
  of(GetSemaphoreCounterValueKHR) of(WaitSemaphoresKHR)
// clang-format on
#define FLUXION_VULKAN_MEMBER(name) PFN_vk##name name = nullptr;

struct InstanceFunctions {
  FLUXION_VULKAN_INSTANCE_FUNCTIONS(FLUXION_VULKAN_MEMBER)
  FLUXION_VULKAN_OPTIONAL_INSTANCE_FUNCTIONS(FLUXION_VULKAN_MEMBER)
};
struct DeviceFunctions {
  FLUXION_VULKAN_DEVICE_FUNCTIONS(FLUXION_VULKAN_MEMBER)
  FLUXION_VULKAN_OPTIONAL_DEVICE_FUNCTIONS(FLUXION_VULKAN_MEMBER)
};

// Throw DeviceError, which names the function, if one is missing that is not optional.
InstanceFunctions load_instance(PFN_vkGetInstanceProcAddr get, VkInstance instance);
DeviceFunctions load_device(PFN_vkGetDeviceProcAddr get, VkDevice device);

}  // namespace fluxion::vulkan_backend
