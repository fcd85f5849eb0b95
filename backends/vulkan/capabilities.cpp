#include "backends/vulkan/capabilities.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>

#include "backends/vulkan/features.h"
#include "backends/vulkan/kernels/attention.h"
#include "backends/vulkan/kernels/tape_limits.h"
#include "backends/vulkan/own_device.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

namespace {

DeviceKind kind_of(VkPhysicalDeviceType type) {
  switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
      return DeviceKind::discrete;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
      return DeviceKind::integrated;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
      return DeviceKind::virtual_gpu;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
      return DeviceKind::software;
    default:
      return DeviceKind::other;
  }
}

// Links structures into a pNext chain.
template <class Head, class... Structures>
void chain(Head& head, Structures*... structures) {
  for (VkBaseOutStructure* each : {reinterpret_cast<VkBaseOutStructure*>(structures)...}) {
    each->pNext = static_cast<VkBaseOutStructure*>(head.pNext);
    head.pNext = each;
  }
}

// The family of the queue: the one that is `chosen`, if one is.
std::uint32_t compute_queue(const InstanceFunctions& call, VkPhysicalDevice device,
                            std::optional<std::uint32_t> chosen, DeviceFacts& facts) {
  std::uint32_t count = 0;
  call.GetPhysicalDeviceQueueFamilyProperties(device, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  call.GetPhysicalDeviceQueueFamilyProperties(device, &count, families.data());
  if (chosen) {
    if (*chosen >= count || !(families[*chosen].queueFlags & VK_QUEUE_COMPUTE_BIT))
      facts.refused = "queue family " + std::to_string(*chosen) + " can't compute";
    else
      facts.timestamp_bits = families[*chosen].timestampValidBits;
    return *chosen;
  }
  // One for compute alone leaves the queue that draws the desktop free.
  for (const bool alone : {true, false})
    for (std::uint32_t i = 0; i < count; ++i) {
      const VkQueueFlags flags = families[i].queueFlags;
      if (!(flags & VK_QUEUE_COMPUTE_BIT) || families[i].queueCount == 0) continue;
      if (alone && (flags & VK_QUEUE_GRAPHICS_BIT)) continue;
      facts.timestamp_bits = families[i].timestampValidBits;
      return i;
    }
  facts.refused = "it has no queue for compute";
  return 0;
}

// The largest heap of the device's own.
std::uint64_t local_bytes(const VkPhysicalDeviceMemoryProperties& memory) {
  std::uint64_t most = 0;
  for (std::uint32_t i = 0; i < memory.memoryHeapCount; ++i)
    if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
      most = std::max<std::uint64_t>(most, memory.memoryHeaps[i].size);
  return most;
}

constexpr std::uint32_t least_storage_buffers = 8;

}  // namespace

std::string_view to_string(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::discrete:
      return "discrete";
    case DeviceKind::integrated:
      return "integrated";
    case DeviceKind::virtual_gpu:
      return "virtual";
    case DeviceKind::software:
      return "software";
    case DeviceKind::other:
      return "other";
  }
  return "";
}

DeviceFacts facts_of(const Instance& instance, VkPhysicalDevice device, const Enabled* enabled) {
  const InstanceFunctions& call = instance.call();
  DeviceFacts facts;
  VkPhysicalDeviceProperties basic{};
  call.GetPhysicalDeviceProperties(device, &basic);
  facts.name = basic.deviceName;
  facts.kind = kind_of(basic.deviceType);
  facts.vendor = basic.vendorID;
  facts.device = basic.deviceID;
  facts.driver_version = basic.driverVersion;
  facts.api_version = std::min(basic.apiVersion, instance.api_version());
  std::copy(std::begin(basic.pipelineCacheUUID), std::end(basic.pipelineCacheUUID),
            facts.cache_uuid.begin());
  if (basic.apiVersion < VK_API_VERSION_1_1) {
    facts.refused = "its driver is older than Vulkan 1.1";
    return facts;
  }
  const DeviceExtensions extensions(call, device);
  const auto from = [&](std::uint32_t version, const char* extension) {
    return facts.api_version >= version || extensions.has(extension);
  };
  // Whether a device that the application made may use it, too.
  const auto on = [&](std::uint32_t version, const char* extension) {
    return from(version, extension) &&
           (!enabled || facts.api_version >= version || enabled->has(extension));
  };

  auto properties =
      structure<VkPhysicalDeviceProperties2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2);
  auto subgroups = structure<VkPhysicalDeviceSubgroupProperties>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES);
  auto maintenance = structure<VkPhysicalDeviceMaintenance3Properties>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES);
  auto driver = structure<VkPhysicalDeviceDriverProperties>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES);
  auto floats = structure<VkPhysicalDeviceFloatControlsProperties>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FLOAT_CONTROLS_PROPERTIES);
  auto sizes = structure<VkPhysicalDeviceSubgroupSizeControlProperties>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES);
  auto larger = structure<VkPhysicalDeviceMaintenance4Properties>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES);
  chain(properties, &subgroups, &maintenance);
  const bool has_driver = from(VK_API_VERSION_1_2, VK_KHR_DRIVER_PROPERTIES_EXTENSION_NAME);
  const bool has_floats = from(VK_API_VERSION_1_2, VK_KHR_SHADER_FLOAT_CONTROLS_EXTENSION_NAME);
  const bool has_sizes = from(VK_API_VERSION_1_3, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
  const bool has_larger = from(VK_API_VERSION_1_3, VK_KHR_MAINTENANCE_4_EXTENSION_NAME);
  if (has_driver) chain(properties, &driver);
  if (has_floats) chain(properties, &floats);
  if (has_sizes) chain(properties, &sizes);
  if (has_larger) chain(properties, &larger);
  call.GetPhysicalDeviceProperties2(device, &properties);

  DeviceFeatures features;
  ask_features(call, device, facts.api_version, extensions, features);
  if (enabled) {
    std::size_t number = 0;
    for (const NamedFeature& each : features.named())
      if (!enabled->has_feature(number++) || (each.extension && !on(each.core, each.extension)))
        *each.value = VK_FALSE;
  }

  const VkPhysicalDeviceLimits& limits = properties.properties.limits;
  if (has_driver) {
    facts.driver = static_cast<std::uint32_t>(driver.driverID);
    facts.driver_name = driver.driverName;
    facts.driver_info = driver.driverInfo;
  }

  ShaderTarget& shaders = facts.shaders;
  shaders.shared_bytes = limits.maxComputeSharedMemorySize;
  shaders.max_invocations = limits.maxComputeWorkGroupInvocations;
  std::copy_n(limits.maxComputeWorkGroupSize, 3, shaders.max_local_size.begin());
  shaders.max_groups = *std::min_element(std::begin(limits.maxComputeWorkGroupCount),
                                         std::end(limits.maxComputeWorkGroupCount));
  shaders.storage_16 = features.storage_16.storageBuffer16BitAccess;
  shaders.storage_8 = features.storage_8.storageBuffer8BitAccess;
  shaders.float_16 = features.small_types.shaderFloat16;
  shaders.integer_8 = features.small_types.shaderInt8;
  shaders.integer_16 = features.basic.features.shaderInt16;
  shaders.preserves_special_values =
      on(VK_API_VERSION_1_2, VK_KHR_SHADER_FLOAT_CONTROLS_EXTENSION_NAME) &&
      floats.shaderSignedZeroInfNanPreserveFloat32 == VK_TRUE;
  // (Of the same extension, which is enabled for special values.)
  shaders.preserves_f16_subnormals =
      shaders.preserves_special_values && floats.shaderDenormPreserveFloat16 == VK_TRUE &&
      floats.denormBehaviorIndependence != VK_SHADER_FLOAT_CONTROLS_INDEPENDENCE_NONE;
  const bool compute_subgroups = (subgroups.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0;
  constexpr VkSubgroupFeatureFlags needed =
      VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
  shaders.subgroup_arithmetic =
      compute_subgroups && (subgroups.supportedOperations & needed) == needed;
  facts.min_subgroup_size = facts.max_subgroup_size = subgroups.subgroupSize;
  if (has_sizes) {
    facts.min_subgroup_size = sizes.minSubgroupSize;
    facts.max_subgroup_size = sizes.maxSubgroupSize;
    shaders.subgroup_size_control =
        features.subgroup_sizes.subgroupSizeControl &&
        features.subgroup_sizes.computeFullSubgroups &&
        (sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) != 0;
  }
  // Without the extension the size that a kernel gets is known only where there is just one.
  const bool one_size = has_sizes && facts.min_subgroup_size == facts.max_subgroup_size;
  if (compute_subgroups && (shaders.subgroup_size_control || one_size))
    shaders.subgroup_size = subgroups.subgroupSize;

  facts.max_storage_buffers =
      std::min({limits.maxPerStageDescriptorStorageBuffers, limits.maxDescriptorSetStorageBuffers,
                limits.maxPerStageResources});
  facts.max_push_bytes = limits.maxPushConstantsSize;
  // Whole words, and counted in i32 by kernels.
  facts.max_binding_bytes = limits.maxStorageBufferRange & ~std::uint32_t{255};
  facts.binding_alignment = std::max<std::int64_t>(
      256, static_cast<std::int64_t>(limits.minStorageBufferOffsetAlignment));
  std::uint64_t most = maintenance.maxMemoryAllocationSize;
  if (has_larger && larger.maxBufferSize > 0)
    most = std::min<std::uint64_t>(most, larger.maxBufferSize);
  facts.max_allocation_bytes =
      static_cast<std::int64_t>(std::min<std::uint64_t>(most, std::uint64_t{1} << 60));
  facts.max_allocations = limits.maxMemoryAllocationCount;
  facts.timeline_semaphore = features.timeline.timelineSemaphore;
  facts.memory_budget = extensions.has(VK_EXT_MEMORY_BUDGET_EXTENSION_NAME) &&
                        (!enabled || enabled->has(VK_EXT_MEMORY_BUDGET_EXTENSION_NAME));
  facts.portability = extensions.has(portability_extension);
  facts.timestamp_seconds = 1e-9 * static_cast<double>(limits.timestampPeriod);
  facts.queue_family = compute_queue(
      call, device, enabled ? std::optional(enabled->queue_family()) : std::nullopt, facts);
  VkPhysicalDeviceMemoryProperties memory{};
  call.GetPhysicalDeviceMemoryProperties(device, &memory);
  facts.memory_bytes = local_bytes(memory);
  facts.unified_memory = is_unified(memory, facts.kind);
  if (facts.max_storage_buffers < least_storage_buffers)
    facts.refused = "its kernels can use " + std::to_string(facts.max_storage_buffers) +
                    " storage buffers, " + std::to_string(least_storage_buffers) + " are needed";
  if (enabled && facts.refused.empty())
    facts.refused = missing(*enabled, facts.api_version, extensions);
  return facts;
}

bool is_unified(const VkPhysicalDeviceMemoryProperties& memory, DeviceKind kind) {
  constexpr VkMemoryPropertyFlags visible =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  bool all_local = true, in_place = false;
  for (std::uint32_t i = 0; i < memory.memoryHeapCount; ++i)
    all_local = all_local && (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) != 0;
  std::uint64_t seen = 0;  // by the host, of one heap
  for (std::uint32_t i = 0; i < memory.memoryTypeCount; ++i) {
    const VkMemoryType& type = memory.memoryTypes[i];
    if ((type.propertyFlags & visible) != visible) continue;
    in_place = in_place || (type.propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT) != 0;
    seen = std::max<std::uint64_t>(seen, memory.memoryHeaps[type.heapIndex].size);
  }
  const bool shares = kind == DeviceKind::integrated || kind == DeviceKind::software;
  // An integrated device may have set most of the memory aside, where the host doesn't see it.
  return in_place && (shares || all_local) && seen >= local_bytes(memory) / 4;
}

void choose_kernels(DeviceFacts& facts) {
  const char* const variable = std::getenv("FLUXION_VULKAN_KERNELS");
  const std::string_view wanted = variable ? variable : "";
  if (!wanted.empty() && wanted != "full" && wanted != "short")
    throw DeviceError("vulkan: FLUXION_VULKAN_KERNELS is '" + std::string(wanted) +
                      "'; it may be full or short");
  facts.shaders.short_code =
      wanted == "short" || (wanted.empty() && facts.kind == DeviceKind::software);
  if (facts.kind == DeviceKind::software && facts.shaders.short_code) facts.shaders.lanes = 64;
}

DeviceFacts least_facts(DeviceFacts facts) {
  const ShaderTarget least;
  facts.shaders = least;
  facts.max_storage_buffers = least_storage_buffers;
  facts.max_push_bytes = 128;
  facts.max_binding_bytes = std::min(facts.max_binding_bytes, std::int64_t{1} << 27);
  facts.unified_memory = false;
  facts.timeline_semaphore = false;
  facts.memory_budget = false;
  facts.timestamp_bits = 0;
  return facts;
}

Capabilities capabilities_of(const DeviceFacts& facts) {
  Capabilities result;
  result.name = "vulkan (" + facts.name + ")";
  result.f64 = false;
  result.host_memory = facts.unified_memory;
  KernelLimits& limits = result.limits;
  limits = tape_limits(facts.shaders);
  // Beside a kernel's buffers it may bind its scratch and the call's scalars.
  constexpr std::uint32_t most_buffers = 4096;
  limits.max_buffers = std::min(
      limits.max_buffers, static_cast<int>(std::min(facts.max_storage_buffers, most_buffers)) - 2);
  limits.alignment = facts.binding_alignment;
  limits.block_bytes = facts.block_bytes();
  limits.max_binding_bytes = std::min(facts.max_binding_bytes, limits.block_bytes);
  limits.index_bits = 32;
  limits.max_attention_head = max_attention_head(facts.shaders);
  result.storage.keep(DType::boolean, DType::u32).write_together(4);
  if (!facts.shaders.storage_8) result.storage.keep(DType::u8, DType::u32);
  if (!facts.shaders.storage_16)
    result.storage.keep(DType::bf16, DType::f32).keep(DType::f16, DType::f32);
  // A dispatch costs more than the passes that it saves.
  result.costs.group_norm_by_channel = false;
  result.costs.max_turned_channels = 7;  // not measured beyond
  return result;
}

std::vector<std::pair<std::string, std::string>> listed(const DeviceFacts& facts) {
  const ShaderTarget& shaders = facts.shaders;
  const auto yes = [](bool value) { return std::string(value ? "yes" : "no"); };
  const auto number = [](auto value) { return std::to_string(value); };
  return {
      {"API", number(VK_API_VERSION_MAJOR(facts.api_version)) + "." +
                  number(VK_API_VERSION_MINOR(facts.api_version)) + "." +
                  number(VK_API_VERSION_PATCH(facts.api_version))},
      {"memory shared with the host", yes(facts.unified_memory)},
      {"shared memory", number(shaders.shared_bytes) + " bytes"},
      {"invocations", number(shaders.max_invocations)},
      {"storage buffers", number(facts.max_storage_buffers)},
      {"largest binding", number(facts.max_binding_bytes) + " bytes"},
      {"largest allocation", number(facts.max_allocation_bytes) + " bytes"},
      {"subgroup size",
       shaders.subgroup_size ? number(shaders.subgroup_size) : std::string("not used")},
      {"subgroup sizes",
       number(facts.min_subgroup_size) + " to " + number(facts.max_subgroup_size)},
      {"subgroup arithmetic", yes(shaders.subgroup_arithmetic)},
      {"subgroup size control", yes(shaders.subgroup_size_control)},
      {"16-bit storage", yes(shaders.storage_16)},
      {"8-bit storage", yes(shaders.storage_8)},
      {"f16 arithmetic", yes(shaders.float_16)},
      {"16-bit integers", yes(shaders.integer_16)},
      {"8-bit integers", yes(shaders.integer_8)},
      {"preserves NaN and signed zeros", yes(shaders.preserves_special_values)},
      {"preserves subnormals of f16", yes(shaders.preserves_f16_subnormals)},
      {"kernels", shaders.short_code ? "short code, quickly compiled" : "full"},
      {"timeline semaphores", yes(facts.timeline_semaphore)},
      {"memory budget", yes(facts.memory_budget)},
      {"timestamps", yes(facts.timestamp_bits > 0)},
  };
}

}  // namespace fluxion::vulkan_backend
