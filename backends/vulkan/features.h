// The optional features of a device: asked for and enabled through one chain of structures.
#pragma once

#include <cstdint>

#include "backends/vulkan/api.h"

namespace fluxion::vulkan_backend {

class DeviceFeatures {
 public:
  DeviceFeatures() = default;
  DeviceFeatures(const DeviceFeatures&) = delete;  // the chain points into it
  DeviceFeatures& operator=(const DeviceFeatures&) = delete;

  VkPhysicalDeviceFeatures2 basic =
      structure<VkPhysicalDeviceFeatures2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2);
  VkPhysicalDevice16BitStorageFeatures storage_16 = structure<VkPhysicalDevice16BitStorageFeatures>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES);
  VkPhysicalDevice8BitStorageFeatures storage_8 = structure<VkPhysicalDevice8BitStorageFeatures>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES);
  VkPhysicalDeviceShaderFloat16Int8Features small_types =
      structure<VkPhysicalDeviceShaderFloat16Int8Features>(
          VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES);
  VkPhysicalDeviceTimelineSemaphoreFeatures timeline =
      structure<VkPhysicalDeviceTimelineSemaphoreFeatures>(
          VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES);
  VkPhysicalDeviceSubgroupSizeControlFeatures subgroup_sizes =
      structure<VkPhysicalDeviceSubgroupSizeControlFeatures>(
          VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES);

  // Links the structures that `wanted(any, core, extension)` holds for behind `basic`. `any`: a
  // feature of it is set; `core`: the version of Vulkan that has it; `extension`: what offers it to
  // older devices, or nullptr.
  template <class Wanted>
  void link(const Wanted& wanted) {
    const auto add = [&](auto& part, VkBool32 any, std::uint32_t core, const char* extension) {
      if (!wanted(any == VK_TRUE, core, extension)) return;
      part.pNext = basic.pNext;
      basic.pNext = &part;
    };
    add(storage_16, storage_16.storageBuffer16BitAccess, VK_API_VERSION_1_1, nullptr);
    add(storage_8, storage_8.storageBuffer8BitAccess, VK_API_VERSION_1_2,
        VK_KHR_8BIT_STORAGE_EXTENSION_NAME);
    add(small_types, small_types.shaderFloat16 | small_types.shaderInt8, VK_API_VERSION_1_2,
        VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME);
    add(timeline, timeline.timelineSemaphore, VK_API_VERSION_1_2,
        VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME);
    add(subgroup_sizes, subgroup_sizes.subgroupSizeControl, VK_API_VERSION_1_3,
        VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
  }
};

}  // namespace fluxion::vulkan_backend
