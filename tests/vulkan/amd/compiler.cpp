#include "tests/vulkan/amd/compiler.h"

#define VK_NO_PROTOTYPES
#include <dlfcn.h>
#include <vulkan/vulkan.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "engine/error.h"

namespace fluxion::amd {

namespace {

constexpr const char* driver_file = "/usr/share/vulkan/icd.d/radeon_icd.x86_64.json";

// RADV's name of a family, or the LLVM target's where cards share one.
std::string family_of_driver(const std::string& name) {
  constexpr const char* known[] = {"tonga",  "fiji",   "polaris10", "polaris11", "vega10", "vega12",
                                   "vega20", "raven",  "renoir",    "navi10",    "navi14", "navi21",
                                   "navi22", "navi23", "navi24",    "gfx1100"};
  constexpr std::pair<const char*, const char*> targets[] = {
      {"gfx803", "polaris10"}, {"gfx900", "vega10"}, {"gfx1010", "navi10"}, {"gfx1030", "navi21"}};
  for (const auto& [target, family] : targets)
    if (name == target) return family;
  for (const char* family : known)
    if (name == family) return name;
  throw Error("amd: '" + name + "' is no family of cards that is known here");  // RADV would abort
}

void check(VkResult result, const char* call) {
  if (result < 0)
    throw Error(std::string("amd: ") + call + " failed with " + std::to_string(result));
}

// Calls a function that fills a list in the two steps of Vulkan.
template <class T, class F>
std::vector<T> enumerate(const T& element, F function) {
  std::uint32_t count = 0;
  function(&count, static_cast<T*>(nullptr));
  std::vector<T> list(count, element);
  function(&count, list.data());
  list.resize(count);
  return list;
}

}  // namespace

Interface interface_of(std::span<const std::uint32_t> words) {
  constexpr std::uint32_t op_decorate = 71, op_variable = 59;
  constexpr std::uint32_t decoration_binding = 33, storage_push_constant = 9;
  Interface interface;
  for (std::size_t at = 5; at < words.size();) {
    const std::uint32_t op = words[at] & 0xffff, length = words[at] >> 16;
    if (length == 0 || at + length > words.size()) throw Error("amd: not a SPIR-V module");
    if (op == op_decorate && length >= 4 && words[at + 2] == decoration_binding)
      interface.bindings = std::max(interface.bindings, words[at + 3] + 1);
    if (op == op_variable && length >= 4 && words[at + 3] == storage_push_constant)
      interface.push_bytes = 128;
    at += length;
  }
  return interface;
}

struct Compiler::State {
  void* library = nullptr;
  VkInstance instance = nullptr;
  VkDevice device = nullptr;
  std::string device_name, driver_name;
  vulkan_backend::ShaderTarget target;

  PFN_vkGetInstanceProcAddr get_instance_proc = nullptr;
  PFN_vkGetDeviceProcAddr get_device_proc = nullptr;

  ~State() {
    if (device) of_device<PFN_vkDestroyDevice>("vkDestroyDevice")(device, nullptr);
    if (instance) of_instance<PFN_vkDestroyInstance>("vkDestroyInstance")(instance, nullptr);
    if (library) dlclose(library);
  }

  template <class Function>
  Function of_instance(const char* name) const {
    return reinterpret_cast<Function>(get_instance_proc(instance, name));
  }
  template <class Function>
  Function of_device(const char* name) const {
    return reinterpret_cast<Function>(get_device_proc(device, name));
  }

  void make_instance();
  VkPhysicalDevice choose(const std::string& family);
  void describe(VkPhysicalDevice physical);
  void make_device(VkPhysicalDevice physical);
};

void Compiler::State::make_instance() {
  VkApplicationInfo application{};
  application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
  application.apiVersion = VK_API_VERSION_1_3;
  VkInstanceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  info.pApplicationInfo = &application;
  check(of_instance<PFN_vkCreateInstance>("vkCreateInstance")(&info, nullptr, &instance),
        "vkCreateInstance");
  get_device_proc = of_instance<PFN_vkGetDeviceProcAddr>("vkGetDeviceProcAddr");
}

VkPhysicalDevice Compiler::State::choose(const std::string& family) {
  const auto list = of_instance<PFN_vkEnumeratePhysicalDevices>("vkEnumeratePhysicalDevices");
  const auto devices =
      enumerate(VkPhysicalDevice{}, [&](std::uint32_t* count, VkPhysicalDevice* devices) {
        check(list(instance, count, devices), "vkEnumeratePhysicalDevices");
      });
  if (devices.empty()) throw Error("amd: RADV made no device of the family '" + family + "'");
  return devices[0];
}

void Compiler::State::describe(VkPhysicalDevice physical) {
  VkPhysicalDeviceVulkan12Properties v12{};
  v12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES;
  VkPhysicalDeviceVulkan11Properties v11{};
  v11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES;
  v11.pNext = &v12;
  VkPhysicalDeviceProperties2 properties{};
  properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  properties.pNext = &v11;
  of_instance<PFN_vkGetPhysicalDeviceProperties2>("vkGetPhysicalDeviceProperties2")(physical,
                                                                                    &properties);
  device_name = properties.properties.deviceName;
  driver_name = v12.driverInfo;

  VkPhysicalDeviceVulkan12Features f12{};
  f12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  VkPhysicalDeviceVulkan11Features f11{};
  f11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
  f11.pNext = &f12;
  VkPhysicalDeviceFeatures2 features{};
  features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  features.pNext = &f11;
  of_instance<PFN_vkGetPhysicalDeviceFeatures2>("vkGetPhysicalDeviceFeatures2")(physical,
                                                                                &features);
  const VkPhysicalDeviceLimits& limits = properties.properties.limits;
  target.shared_bytes = limits.maxComputeSharedMemorySize;
  target.max_invocations = limits.maxComputeWorkGroupInvocations;
  std::copy_n(limits.maxComputeWorkGroupSize, 3, target.max_local_size.begin());
  target.max_groups =
      *std::min_element(limits.maxComputeWorkGroupCount, limits.maxComputeWorkGroupCount + 3);
  target.subgroup_size = v11.subgroupSize;
  target.subgroup_arithmetic = v11.subgroupSupportedOperations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
  target.subgroup_size_control = true;  // of API 1.3
  target.storage_16 = f11.storageBuffer16BitAccess;
  target.storage_8 = f12.storageBuffer8BitAccess;
  target.float_16 = f12.shaderFloat16;
  target.integer_16 = features.features.shaderInt16;
  target.integer_8 = f12.shaderInt8;
  target.preserves_special_values = v12.shaderSignedZeroInfNanPreserveFloat32;
}

void Compiler::State::make_device(VkPhysicalDevice physical) {
  // Every feature that the device has: a shader may use any.
  VkPhysicalDeviceVulkan13Features f13{};
  f13.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
  VkPhysicalDeviceVulkan12Features f12{};
  f12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  f12.pNext = &f13;
  VkPhysicalDeviceVulkan11Features f11{};
  f11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
  f11.pNext = &f12;
  VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executables{};
  executables.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR;
  executables.pNext = &f11;
  VkPhysicalDeviceFeatures2 features{};
  features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  features.pNext = &executables;
  of_instance<PFN_vkGetPhysicalDeviceFeatures2>("vkGetPhysicalDeviceFeatures2")(physical,
                                                                                &features);
  if (!executables.pipelineExecutableInfo) throw Error("amd: the driver states no statistics");
  const float priority = 1;
  VkDeviceQueueCreateInfo queue{};
  queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  const char* extension = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
  VkDeviceCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info.pNext = &features;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  info.enabledExtensionCount = 1;
  info.ppEnabledExtensionNames = &extension;
  check(of_instance<PFN_vkCreateDevice>("vkCreateDevice")(physical, &info, nullptr, &device),
        "vkCreateDevice");
}

std::optional<Compiler> Compiler::make(const std::string& family) {
  if (!std::filesystem::exists(driver_file)) return {};
  const std::string known_family = family_of_driver(family);
  auto state = std::make_unique<State>();
  state->library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!state->library) return {};
  setenv("VK_DRIVER_FILES", driver_file, 1);
  setenv("VK_ICD_FILENAMES", driver_file, 1);
  setenv("RADV_FORCE_FAMILY", known_family.c_str(), 1);
  setenv("XDG_RUNTIME_DIR", "/tmp", 0);
  // Each shader is compiled, so that it has statistics: none comes from a cache.
  setenv("MESA_SHADER_CACHE_DISABLE", "true", 1);
  state->get_instance_proc =
      reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(state->library, "vkGetInstanceProcAddr"));
  state->make_instance();
  const VkPhysicalDevice physical = state->choose(family);
  state->describe(physical);
  state->make_device(physical);
  return Compiler(std::move(state));
}

Compiler::Compiler(std::unique_ptr<State> state) : state_(std::move(state)) {}
Compiler::Compiler(Compiler&&) noexcept = default;
Compiler::~Compiler() = default;

const std::string& Compiler::device() const { return state_->device_name; }
const std::string& Compiler::driver() const { return state_->driver_name; }
const vulkan_backend::ShaderTarget& Compiler::target() const { return state_->target; }

namespace {

// A handle of the device that is destroyed with this object.
template <class Handle, class Destroy>
class Owned {
 public:
  Owned(VkDevice device, Destroy destroy) : device_(device), destroy_(destroy) {}
  ~Owned() { destroy_(device_, handle, nullptr); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Handle handle = VK_NULL_HANDLE;

 private:
  VkDevice device_;
  Destroy destroy_;
};

struct NamedStatistic {
  const char* name;
  std::int64_t Statistics::*member;
};
constexpr NamedStatistic named_statistics[] = {
    {"SGPRs", &Statistics::sgprs},
    {"VGPRs", &Statistics::vgprs},
    {"Spilled SGPRs", &Statistics::spilled_sgprs},
    {"Spilled VGPRs", &Statistics::spilled_vgprs},
    {"Scratch size", &Statistics::scratch_bytes},
    {"LDS size", &Statistics::shared_bytes},
    {"Subgroups per SIMD", &Statistics::subgroups_per_simd},
    {"Code size", &Statistics::code_bytes},
    {"Instructions", &Statistics::instructions},
    {"Latency", &Statistics::latency},
    {"Inverse Throughput", &Statistics::inverse_throughput},
};

std::int64_t number(const VkPipelineExecutableStatisticKHR& statistic) {
  switch (statistic.format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
      return statistic.value.b32;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
      return statistic.value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR:
      return static_cast<std::int64_t>(statistic.value.f64);
    default:
      return static_cast<std::int64_t>(statistic.value.u64);
  }
}

}  // namespace

CompiledShader Compiler::compile(std::span<const std::uint32_t> words,
                                 const Interface& interface) const {
  const State& s = *state_;

  VkShaderModuleCreateInfo module_info{};
  module_info.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
  module_info.codeSize = words.size_bytes();
  module_info.pCode = words.data();
  Owned<VkShaderModule, PFN_vkDestroyShaderModule> module(
      s.device, s.of_device<PFN_vkDestroyShaderModule>("vkDestroyShaderModule"));
  check(s.of_device<PFN_vkCreateShaderModule>("vkCreateShaderModule")(s.device, &module_info,
                                                                      nullptr, &module.handle),
        "vkCreateShaderModule");

  std::vector<VkDescriptorSetLayoutBinding> bindings(interface.bindings);
  for (std::uint32_t i = 0; i < interface.bindings; ++i) {
    bindings[i].binding = i;
    bindings[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    bindings[i].descriptorCount = 1;
    bindings[i].stageFlags = VK_SHADER_STAGE_COMPUTE_BIT;
  }
  VkDescriptorSetLayoutCreateInfo set_info{};
  set_info.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO;
  set_info.bindingCount = interface.bindings;
  set_info.pBindings = bindings.data();
  Owned<VkDescriptorSetLayout, PFN_vkDestroyDescriptorSetLayout> set(
      s.device, s.of_device<PFN_vkDestroyDescriptorSetLayout>("vkDestroyDescriptorSetLayout"));
  check(s.of_device<PFN_vkCreateDescriptorSetLayout>("vkCreateDescriptorSetLayout")(
            s.device, &set_info, nullptr, &set.handle),
        "vkCreateDescriptorSetLayout");

  const VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, interface.push_bytes};
  VkPipelineLayoutCreateInfo layout_info{};
  layout_info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
  layout_info.setLayoutCount = 1;
  layout_info.pSetLayouts = &set.handle;
  layout_info.pushConstantRangeCount = interface.push_bytes > 0 ? 1 : 0;
  layout_info.pPushConstantRanges = &range;
  Owned<VkPipelineLayout, PFN_vkDestroyPipelineLayout> layout(
      s.device, s.of_device<PFN_vkDestroyPipelineLayout>("vkDestroyPipelineLayout"));
  check(s.of_device<PFN_vkCreatePipelineLayout>("vkCreatePipelineLayout")(s.device, &layout_info,
                                                                          nullptr, &layout.handle),
        "vkCreatePipelineLayout");

  VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size{};
  size.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO;
  size.requiredSubgroupSize = interface.subgroup_size;
  VkComputePipelineCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
  info.flags = VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR |
               VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR;
  info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  info.stage.pNext = interface.subgroup_size > 0 ? &size : nullptr;
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.module = module.handle;
  info.stage.pName = "main";
  info.layout = layout.handle;
  Owned<VkPipeline, PFN_vkDestroyPipeline> pipeline(
      s.device, s.of_device<PFN_vkDestroyPipeline>("vkDestroyPipeline"));
  check(s.of_device<PFN_vkCreateComputePipelines>("vkCreateComputePipelines")(
            s.device, VK_NULL_HANDLE, 1, &info, nullptr, &pipeline.handle),
        "vkCreateComputePipelines");

  VkPipelineExecutableInfoKHR executable{};
  executable.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR;
  executable.pipeline = pipeline.handle;
  CompiledShader result;
  const auto get_statistics =
      s.of_device<PFN_vkGetPipelineExecutableStatisticsKHR>("vkGetPipelineExecutableStatisticsKHR");
  VkPipelineExecutableStatisticKHR no_statistic{};
  no_statistic.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
  for (const auto& statistic : enumerate(no_statistic, [&](std::uint32_t*count, auto*list) {
         check(get_statistics(s.device, &executable, count, list),
               "vkGetPipelineExecutableStatisticsKHR");
       }))
    for (const NamedStatistic& named : named_statistics)
      if (std::strcmp(named.name, statistic.name) == 0)
        result.statistics.*named.member = number(statistic);

  const auto get_texts = s.of_device<PFN_vkGetPipelineExecutableInternalRepresentationsKHR>(
      "vkGetPipelineExecutableInternalRepresentationsKHR");
  VkPipelineExecutableInternalRepresentationKHR no_text{};
  no_text.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR;
  auto texts = enumerate(no_text, [&](std::uint32_t* count, auto* list) {
    check(get_texts(s.device, &executable, count, list),
          "vkGetPipelineExecutableInternalRepresentationsKHR");
  });
  std::vector<std::string> contents(texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    contents[i].resize(texts[i].dataSize);
    texts[i].pData = contents[i].data();
  }
  std::uint32_t count = static_cast<std::uint32_t>(texts.size());
  check(get_texts(s.device, &executable, &count, texts.data()),
        "vkGetPipelineExecutableInternalRepresentationsKHR");
  for (std::size_t i = 0; i < texts.size(); ++i)
    if (std::strcmp(texts[i].name, "Assembly") == 0) result.isa = contents[i].c_str();
  return result;
}

}  // namespace fluxion::amd
