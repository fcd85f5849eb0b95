// The optional features of a device: asked for and enabled through one chain of structures.
#pragma once

#include <array>
#include <cstdint>

#include "backends/vulkan/api.h"

namespace fluxion::vulkan_backend {

// One of them, by the name that it has in its structure and in that of a version of Vulkan.
struct NamedFeature {
  const char* name;
  const char* structure;
  VkBool32* value;
  std::uint32_t core;     // the version of Vulkan that has it
  const char* extension;  // what offers it to older devices, or nullptr
};

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

  // All of them.
  static constexpr std::size_t count = 8;
  std::array<NamedFeature, count> named() {
    return {{
        {"shaderInt16", "VkPhysicalDeviceFeatures", &basic.features.shaderInt16, VK_API_VERSION_1_0,
         nullptr},
        {"storageBuffer16BitAccess", "VkPhysicalDevice16BitStorageFeatures",
         &storage_16.storageBuffer16BitAccess, VK_API_VERSION_1_1, nullptr},
        {"storageBuffer8BitAccess", "VkPhysicalDevice8BitStorageFeatures",
         &storage_8.storageBuffer8BitAccess, VK_API_VERSION_1_2,
         VK_KHR_8BIT_STORAGE_EXTENSION_NAME},
        {"shaderFloat16", "VkPhysicalDeviceShaderFloat16Int8Features", &small_types.shaderFloat16,
         VK_API_VERSION_1_2, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME},
        {"shaderInt8", "VkPhysicalDeviceShaderFloat16Int8Features", &small_types.shaderInt8,
         VK_API_VERSION_1_2, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME},
        {"timelineSemaphore", "VkPhysicalDeviceTimelineSemaphoreFeatures",
         &timeline.timelineSemaphore, VK_API_VERSION_1_2, VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME},
        {"subgroupSizeControl", "VkPhysicalDeviceSubgroupSizeControlFeatures",
         &subgroup_sizes.subgroupSizeControl, VK_API_VERSION_1_3,
         VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME},
        {"computeFullSubgroups", "VkPhysicalDeviceSubgroupSizeControlFeatures",
         &subgroup_sizes.computeFullSubgroups, VK_API_VERSION_1_3,
         VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME},
    }};
  }

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
