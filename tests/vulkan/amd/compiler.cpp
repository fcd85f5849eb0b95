#include "tests/vulkan/amd/compiler.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "backends/vulkan/api.h"
#include "backends/vulkan/instance.h"
#include "engine/error.h"

namespace fluxion::amd {

using vulkan_backend::check;
using vulkan_backend::structure;

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
  constexpr std::uint32_t magic = 0x07230203;
  if (words.size() < 5 || words[0] != magic) throw Error("amd: not a SPIR-V module");
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
  const vulkan_backend::Instance instance;
  vulkan_backend::DeviceFacts facts;
  VkDevice device = VK_NULL_HANDLE;
  vulkan_backend::DeviceFunctions call;
  PFN_vkGetPipelineExecutableStatisticsKHR get_statistics = nullptr;
  PFN_vkGetPipelineExecutableInternalRepresentationsKHR get_representations = nullptr;

  explicit State(const std::string& family);
  ~State() {
    if (device) call.DestroyDevice(device, nullptr);
  }
};

Compiler::State::State(const std::string& family) {
  if (instance.devices().empty())
    throw Error("amd: RADV made no device of the family '" + family + "'");
  const VkPhysicalDevice physical = instance.devices()[0];
  facts = facts_of(instance, physical);
  apply_quirks(facts);

  // Every feature that the device has: a shader may use any.
  auto f13 = structure<VkPhysicalDeviceVulkan13Features>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES);
  auto f12 = structure<VkPhysicalDeviceVulkan12Features>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
  auto f11 = structure<VkPhysicalDeviceVulkan11Features>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES);
  auto executables = structure<VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR);
  auto features =
      structure<VkPhysicalDeviceFeatures2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2);
  features.pNext = &executables;
  executables.pNext = &f11;
  f11.pNext = &f12;
  f12.pNext = &f13;
  instance.call().GetPhysicalDeviceFeatures2(physical, &features);
  if (!executables.pipelineExecutableInfo) throw Error("amd: the driver states no statistics");
  const float priority = 1;
  auto queue = structure<VkDeviceQueueCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO);
  queue.queueFamilyIndex = facts.queue_family;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  const char* extension = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
  auto info = structure<VkDeviceCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO);
  info.pNext = &features;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  info.enabledExtensionCount = 1;
  info.ppEnabledExtensionNames = &extension;
  check(instance.call().CreateDevice(physical, &info, nullptr, &device), "make a device");
  const PFN_vkGetDeviceProcAddr get = instance.call().GetDeviceProcAddr;
  // Without its functions the device can't even be destroyed.
  call = vulkan_backend::load_device(get, device);
  get_statistics = reinterpret_cast<PFN_vkGetPipelineExecutableStatisticsKHR>(
      get(device, "vkGetPipelineExecutableStatisticsKHR"));
  get_representations = reinterpret_cast<PFN_vkGetPipelineExecutableInternalRepresentationsKHR>(
      get(device, "vkGetPipelineExecutableInternalRepresentationsKHR"));
}

std::optional<Compiler> Compiler::make(const std::string& family) {
  if (!std::filesystem::exists(driver_file)) return {};
  const std::string known_family = family_of_driver(family);
  setenv("VK_DRIVER_FILES", driver_file, 1);
  setenv("VK_ICD_FILENAMES", driver_file, 1);
  setenv("RADV_FORCE_FAMILY", known_family.c_str(), 1);
  setenv("XDG_RUNTIME_DIR", "/tmp", 0);
  // Each shader is compiled, so that it has statistics: none comes from a cache.
  setenv("MESA_SHADER_CACHE_DISABLE", "true", 1);
  return Compiler(std::make_unique<State>(family));
}

Compiler::Compiler(std::unique_ptr<State> state) : state_(std::move(state)) {}
Compiler::Compiler(Compiler&&) noexcept = default;
Compiler::~Compiler() = default;

const vulkan_backend::DeviceFacts& Compiler::facts() const { return state_->facts; }

namespace {

// A handle of the device that is destroyed with this object.
template <class Handle>
class Owned {
 public:
  using Destroy = void(VKAPI_PTR*)(VkDevice, Handle, const VkAllocationCallbacks*);
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

  const vulkan_backend::DeviceFunctions& call = s.call;
  auto module_info =
      structure<VkShaderModuleCreateInfo>(VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO);
  module_info.codeSize = words.size_bytes();
  module_info.pCode = words.data();
  Owned<VkShaderModule> module(s.device, call.DestroyShaderModule);
  check(call.CreateShaderModule(s.device, &module_info, nullptr, &module.handle),
        "make a shader module");

  std::vector<VkDescriptorSetLayoutBinding> bindings(interface.bindings);
  for (std::uint32_t i = 0; i < interface.bindings; ++i) {
    bindings[i].binding = i;
    bindings[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    bindings[i].descriptorCount = 1;
    bindings[i].stageFlags = VK_SHADER_STAGE_COMPUTE_BIT;
  }
  auto set_info = structure<VkDescriptorSetLayoutCreateInfo>(
      VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO);
  set_info.bindingCount = interface.bindings;
  set_info.pBindings = bindings.data();
  Owned<VkDescriptorSetLayout> set(s.device, call.DestroyDescriptorSetLayout);
  check(call.CreateDescriptorSetLayout(s.device, &set_info, nullptr, &set.handle),
        "make a descriptor set layout");

  const VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, interface.push_bytes};
  auto layout_info =
      structure<VkPipelineLayoutCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO);
  layout_info.setLayoutCount = 1;
  layout_info.pSetLayouts = &set.handle;
  layout_info.pushConstantRangeCount = interface.push_bytes > 0 ? 1 : 0;
  layout_info.pPushConstantRanges = &range;
  Owned<VkPipelineLayout> layout(s.device, call.DestroyPipelineLayout);
  check(call.CreatePipelineLayout(s.device, &layout_info, nullptr, &layout.handle),
        "make a pipeline layout");

  auto size = structure<VkPipelineShaderStageRequiredSubgroupSizeCreateInfo>(
      VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO);
  size.requiredSubgroupSize = interface.subgroup_size;
  auto info =
      structure<VkComputePipelineCreateInfo>(VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO);
  info.flags = VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR |
               VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR;
  info.stage = structure<VkPipelineShaderStageCreateInfo>(
      VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO);
  info.stage.pNext = interface.subgroup_size > 0 ? &size : nullptr;
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.module = module.handle;
  info.stage.pName = "main";
  info.layout = layout.handle;
  Owned<VkPipeline> pipeline(s.device, call.DestroyPipeline);
  check(call.CreateComputePipelines(s.device, VK_NULL_HANDLE, 1, &info, nullptr, &pipeline.handle),
        "compile a pipeline");

  auto executable =
      structure<VkPipelineExecutableInfoKHR>(VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR);
  executable.pipeline = pipeline.handle;
  CompiledShader result;
  const auto statistic = structure<VkPipelineExecutableStatisticKHR>(
      VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR);
  for (const auto& stated : enumerate(statistic, [&](std::uint32_t*count, auto*list) {
         check(s.get_statistics(s.device, &executable, count, list), "ask for statistics");
       }))
    for (const NamedStatistic& named : named_statistics)
      if (std::strcmp(named.name, stated.name) == 0)
        result.statistics.*named.member = number(stated);

  const auto representation = structure<VkPipelineExecutableInternalRepresentationKHR>(
      VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR);
  const auto get_texts = [&](std::uint32_t* count, auto* list) {
    check(s.get_representations(s.device, &executable, count, list), "ask for machine code");
  };
  auto texts = enumerate(representation, get_texts);
  std::vector<std::string> contents(texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    contents[i].resize(texts[i].dataSize);
    texts[i].pData = contents[i].data();
  }
  auto count = static_cast<std::uint32_t>(texts.size());
  get_texts(&count, texts.data());
  for (std::size_t i = 0; i < texts.size(); ++i)
    if (std::strcmp(texts[i].name, "Assembly") == 0) result.isa = contents[i].c_str();
  return result;
}

}  // namespace fluxion::amd
