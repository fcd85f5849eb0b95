#include "backends/vulkan/own_device.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "backends/vulkan/capabilities.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

namespace {

constexpr std::string_view required_feature = "timelineSemaphore";

// Where a feature lies in the structures that have it.
struct FeatureMember {
  VkStructureType structure;
  std::size_t offset;
  std::string_view feature;
};
#define FLUXION_FEATURE(structure, type, member)                                             \
  {                                                                                          \
    VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_##type, offsetof(VkPhysicalDevice##structure, member), \
        #member                                                                              \
  }
constexpr FeatureMember feature_members[] = {
    {VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
     offsetof(VkPhysicalDeviceFeatures2, features.shaderInt16), "shaderInt16"},
    FLUXION_FEATURE(16BitStorageFeatures, 16BIT_STORAGE_FEATURES, storageBuffer16BitAccess),
    FLUXION_FEATURE(Vulkan11Features, VULKAN_1_1_FEATURES, storageBuffer16BitAccess),
    FLUXION_FEATURE(8BitStorageFeatures, 8BIT_STORAGE_FEATURES, storageBuffer8BitAccess),
    FLUXION_FEATURE(Vulkan12Features, VULKAN_1_2_FEATURES, storageBuffer8BitAccess),
    FLUXION_FEATURE(ShaderFloat16Int8Features, SHADER_FLOAT16_INT8_FEATURES, shaderFloat16),
    FLUXION_FEATURE(Vulkan12Features, VULKAN_1_2_FEATURES, shaderFloat16),
    FLUXION_FEATURE(ShaderFloat16Int8Features, SHADER_FLOAT16_INT8_FEATURES, shaderInt8),
    FLUXION_FEATURE(Vulkan12Features, VULKAN_1_2_FEATURES, shaderInt8),
    FLUXION_FEATURE(TimelineSemaphoreFeatures, TIMELINE_SEMAPHORE_FEATURES, timelineSemaphore),
    FLUXION_FEATURE(Vulkan12Features, VULKAN_1_2_FEATURES, timelineSemaphore),
    FLUXION_FEATURE(SubgroupSizeControlFeatures, SUBGROUP_SIZE_CONTROL_FEATURES,
                    subgroupSizeControl),
    FLUXION_FEATURE(Vulkan13Features, VULKAN_1_3_FEATURES, subgroupSizeControl),
    FLUXION_FEATURE(SubgroupSizeControlFeatures, SUBGROUP_SIZE_CONTROL_FEATURES,
                    computeFullSubgroups),
    FLUXION_FEATURE(Vulkan13Features, VULKAN_1_3_FEATURES, computeFullSubgroups),
};
#undef FLUXION_FEATURE

}  // namespace

DeviceExtensions::DeviceExtensions(const InstanceFunctions& call, VkPhysicalDevice device) {
  std::uint32_t count = 0;
  check(call.EnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr),
        "list a device's extensions");
  all_.resize(count);
  check(call.EnumerateDeviceExtensionProperties(device, nullptr, &count, all_.data()),
        "list a device's extensions");
}

bool DeviceExtensions::has(std::string_view name) const {
  return std::any_of(all_.begin(), all_.end(),
                     [&](const VkExtensionProperties& each) { return each.extensionName == name; });
}

void ask_features(const InstanceFunctions& call, VkPhysicalDevice device, std::uint32_t api_version,
                  const DeviceExtensions& extensions, DeviceFeatures& features) {
  features.link([&](bool, std::uint32_t core, const char* extension) {
    return !extension || api_version >= core || extensions.has(extension);
  });
  call.GetPhysicalDeviceFeatures2(device, &features.basic);
}

// ---- what is enabled

Enabled::Enabled(const OwnVulkan& own) : queue_family_(own.queue_family) {
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) throw DeviceError("vulkan: of the application's own device, " + what);
  };
  require(own.device, "device is missing (a VkDevice)");
  require(own.device_info,
          "device_info is missing (the VkDeviceCreateInfo that the device was made with)");
  const auto& info = *static_cast<const VkDeviceCreateInfo*>(own.device_info);
  require(info.sType == VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
          "device_info is no VkDeviceCreateInfo: its sType is " + std::to_string(info.sType));
  require(static_cast<bool>(own.lock) == static_cast<bool>(own.unlock),
          "lock and unlock go together, and one is missing");
  require(static_cast<bool>(own.lock) != own.queue_is_unshared,
          own.lock ? "queue_is_unshared is set, and lock and unlock are given: one of the two"
                   : "lock and unlock are missing; where no other thread uses the queue "
                     "meanwhile, set queue_is_unshared");
  bool made = false;
  for (std::uint32_t i = 0; i < info.queueCreateInfoCount; ++i)  // (a protected queue is another)
    made = made || (info.pQueueCreateInfos[i].flags == 0 &&
                    info.pQueueCreateInfos[i].queueFamilyIndex == own.queue_family &&
                    own.queue_index < info.pQueueCreateInfos[i].queueCount);
  require(made, "queue " + std::to_string(own.queue_index) + " of family " +
                    std::to_string(own.queue_family) +
                    " was not made with it, as device_info says");
  for (std::uint32_t i = 0; i < info.enabledExtensionCount; ++i)
    extensions_.emplace_back(info.ppEnabledExtensionNames[i]);
  read_features(info);
}

void Enabled::read_features(const VkDeviceCreateInfo& info) {
  DeviceFeatures features;
  std::size_t number = 0;
  for (const NamedFeature& each : features.named()) {
    bool& on = features_[number++];
    if (each.value == &features.basic.features.shaderInt16 && info.pEnabledFeatures)
      on = info.pEnabledFeatures->shaderInt16 != VK_FALSE;
    for (const auto* part = static_cast<const VkBaseInStructure*>(info.pNext); part;
         part = part->pNext)
      for (const FeatureMember& member : feature_members) {
        if (member.structure != part->sType || member.feature != each.name) continue;
        VkBool32 value = VK_FALSE;
        std::memcpy(&value, reinterpret_cast<const std::byte*>(part) + member.offset,
                    sizeof(value));
        on = on || value != VK_FALSE;
      }
  }
}

bool Enabled::has(std::string_view extension) const {
  return std::find(extensions_.begin(), extensions_.end(), extension) != extensions_.end();
}

std::string missing(const Enabled& enabled, std::uint32_t api_version,
                    const DeviceExtensions& extensions) {
  DeviceFeatures features;
  std::size_t number = 0;
  for (const NamedFeature& each : features.named()) {
    const bool on = enabled.has_feature(number++);
    if (each.name != required_feature) continue;
    if (!on)
      return "the feature " + std::string(each.name) + " (of " + each.structure +
             ") is not enabled";
    if (api_version < each.core && !enabled.has(each.extension))
      return "the extension " + std::string(each.extension) + " is not enabled";
  }
  if (extensions.has(portability_extension) && !enabled.has(portability_extension))
    return "the extension " + std::string(portability_extension) + " is not enabled";
  return {};
}

}  // namespace fluxion::vulkan_backend

// ---- what should be enabled

namespace fluxion {

std::vector<VulkanNeed> vulkan_needs(const OwnVulkan& own) {
  using namespace vulkan_backend;
  const Instance instance(own);
  const VkPhysicalDevice device = instance.devices().front();
  const DeviceFacts facts = facts_of(instance, device);
  const auto refuse = [&](const std::string& why) {
    throw DeviceError("vulkan: '" + facts.name + "' can't be used: " + why);
  };
  if (!facts.refused.empty()) refuse(facts.refused);
  const DeviceExtensions extensions(instance.call(), device);
  DeviceFeatures supported;
  ask_features(instance.call(), device, facts.api_version, extensions, supported);
  std::vector<VulkanNeed> needs;
  const auto add_extension = [&](const char* name, bool required) {
    for (VulkanNeed& each : needs)
      if (each.name == name) {
        each.required = each.required || required;
        return;
      }
    needs.push_back({name, "", required});
  };
  for (const NamedFeature& each : supported.named()) {
    const bool required = each.name == required_feature;
    if (!*each.value) {
      if (required) refuse("it lacks the feature " + std::string(each.name));
      continue;
    }
    needs.push_back({each.name, each.structure, required});
    if (each.extension && facts.api_version < each.core) add_extension(each.extension, required);
  }
  if (facts.shaders.preserves_special_values && facts.api_version < VK_API_VERSION_1_2)
    add_extension(VK_KHR_SHADER_FLOAT_CONTROLS_EXTENSION_NAME, false);
  if (facts.memory_budget) add_extension(VK_EXT_MEMORY_BUDGET_EXTENSION_NAME, false);
  if (facts.portability) add_extension(portability_extension, true);
  return needs;
}

}  // namespace fluxion
