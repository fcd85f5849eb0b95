#include "tests/vulkan/runtime/pretended_driver.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace fluxion::testing {

namespace {

using namespace vulkan_backend;

std::mutex pretended_mutex;
PretendedDriver* pretended = nullptr;

struct PretendedModule {
  std::uint32_t number;
};
struct PretendedCache {
  std::set<std::uint32_t> numbers;
  int users = 0;
  std::size_t bytes() const {
    return PretendedDriver::header_bytes + numbers.size() * PretendedDriver::pipeline_bytes;
  }
  void note_size() const { pretended->largest_cache = std::max(pretended->largest_cache, bytes()); }
};
struct PretendedHandle {};

template <class Handle, class Object>
Handle handle_of(Object* object) {
  return reinterpret_cast<Handle>(object);
}
template <class Object, class Handle>
Object* object_of(Handle handle) {
  return reinterpret_cast<Object*>(handle);
}

DeviceFacts pretended_facts() {
  DeviceFacts facts;
  facts.vendor = 0x1002;
  facts.device = 11;
  facts.driver = 3;
  facts.cache_uuid[2] = 5;
  return facts;
}

VkResult create_module(VkDevice, const VkShaderModuleCreateInfo* info, const VkAllocationCallbacks*,
                       VkShaderModule* module) {
  std::lock_guard lock(pretended_mutex);
  ++pretended->modules;
  *module = handle_of<VkShaderModule>(new PretendedModule{info->pCode[0]});
  return VK_SUCCESS;
}
void destroy_module(VkDevice, VkShaderModule module, const VkAllocationCallbacks*) {
  std::lock_guard lock(pretended_mutex);
  --pretended->modules;
  delete object_of<PretendedModule>(module);
}

VkResult create_cache(VkDevice, const VkPipelineCacheCreateInfo* info, const VkAllocationCallbacks*,
                      VkPipelineCache* cache) {
  std::lock_guard lock(pretended_mutex);
  if (pretended->refuses_caches) return VK_ERROR_OUT_OF_HOST_MEMORY;
  auto* const made = new PretendedCache;
  const auto* const data = static_cast<const std::byte*>(info->pInitialData);
  for (std::size_t at = PretendedDriver::header_bytes; at < info->initialDataSize;
       at += PretendedDriver::pipeline_bytes) {
    std::uint32_t number = 0;
    std::memcpy(&number, data + at, sizeof(number));
    made->numbers.insert(number);
  }
  made->note_size();
  pretended->most_caches = std::max(pretended->most_caches, ++pretended->caches);
  *cache = handle_of<VkPipelineCache>(made);
  return VK_SUCCESS;
}
void destroy_cache(VkDevice, VkPipelineCache cache, const VkAllocationCallbacks*) {
  std::lock_guard lock(pretended_mutex);
  --pretended->caches;
  pretended->misused += object_of<PretendedCache>(cache)->users > 0;
  delete object_of<PretendedCache>(cache);
}
VkResult cache_data(VkDevice, VkPipelineCache cache, std::size_t* bytes, void* data) {
  std::lock_guard lock(pretended_mutex);
  const auto& numbers = object_of<PretendedCache>(cache)->numbers;
  const std::size_t all = pretended->hides_data ? PretendedDriver::header_bytes
                                                : object_of<PretendedCache>(cache)->bytes();
  if (!data) {
    *bytes = all;
    return VK_SUCCESS;
  }
  if (*bytes < all) {
    *bytes = 0;
    return VK_INCOMPLETE;
  }
  *bytes = all;
  std::memset(data, 0, all);
  const DeviceFacts facts = pretended_facts();
  VkPipelineCacheHeaderVersionOne header{};
  static_assert(sizeof(header) == PretendedDriver::header_bytes);
  header.headerSize = sizeof(header);
  header.headerVersion = VK_PIPELINE_CACHE_HEADER_VERSION_ONE;
  header.vendorID = facts.vendor;
  header.deviceID = facts.device;
  std::copy(facts.cache_uuid.begin(), facts.cache_uuid.end(), header.pipelineCacheUUID);
  std::memcpy(data, &header, sizeof(header));
  if (pretended->hides_data) return VK_SUCCESS;
  auto* at = static_cast<std::byte*>(data) + sizeof(header);
  for (const std::uint32_t number : numbers) {
    std::memcpy(at, &number, sizeof(number));
    at += PretendedDriver::pipeline_bytes;
  }
  return VK_SUCCESS;
}
VkResult merge_caches(VkDevice, VkPipelineCache to, std::uint32_t count,
                      const VkPipelineCache* from) {
  std::lock_guard lock(pretended_mutex);
  for (std::uint32_t i = 0; i < count; ++i)
    for (const std::uint32_t number : object_of<PretendedCache>(from[i])->numbers)
      object_of<PretendedCache>(to)->numbers.insert(number);
  object_of<PretendedCache>(to)->note_size();
  return VK_SUCCESS;
}

VkResult create_pipelines(VkDevice, VkPipelineCache cache, std::uint32_t,
                          const VkComputePipelineCreateInfo* info, const VkAllocationCallbacks*,
                          VkPipeline* pipeline) {
  auto* const used = object_of<PretendedCache>(cache);
  {
    std::lock_guard lock(pretended_mutex);
    ++used->users;
  }
  std::this_thread::yield();
  std::lock_guard lock(pretended_mutex);
  pretended->compiled +=
      used->numbers.insert(object_of<PretendedModule>(info->stage.module)->number).second;
  used->note_size();
  --used->users;
  ++pretended->pipelines;
  *pipeline = handle_of<VkPipeline>(new PretendedHandle);
  return VK_SUCCESS;
}
void destroy_pipeline(VkDevice, VkPipeline pipeline, const VkAllocationCallbacks*) {
  std::lock_guard lock(pretended_mutex);
  --pretended->pipelines;
  delete object_of<PretendedHandle>(pipeline);
}

VkResult create_layout(VkDevice, const VkPipelineLayoutCreateInfo*, const VkAllocationCallbacks*,
                       VkPipelineLayout* layout) {
  std::lock_guard lock(pretended_mutex);
  ++pretended->layouts;
  *layout = handle_of<VkPipelineLayout>(new PretendedHandle);
  return VK_SUCCESS;
}
void destroy_layout(VkDevice, VkPipelineLayout layout, const VkAllocationCallbacks*) {
  std::lock_guard lock(pretended_mutex);
  --pretended->layouts;
  delete object_of<PretendedHandle>(layout);
}
VkResult create_set_layout(VkDevice, const VkDescriptorSetLayoutCreateInfo*,
                           const VkAllocationCallbacks*, VkDescriptorSetLayout* layout) {
  std::lock_guard lock(pretended_mutex);
  ++pretended->layouts;
  *layout = handle_of<VkDescriptorSetLayout>(new PretendedHandle);
  return VK_SUCCESS;
}
void destroy_set_layout(VkDevice, VkDescriptorSetLayout layout, const VkAllocationCallbacks*) {
  std::lock_guard lock(pretended_mutex);
  --pretended->layouts;
  delete object_of<PretendedHandle>(layout);
}

}  // namespace

Pretended::Pretended() : facts_(pretended_facts()) {
  std::lock_guard lock(pretended_mutex);
  pretended = new PretendedDriver;
  call_.CreateShaderModule = create_module;
  call_.DestroyShaderModule = destroy_module;
  call_.CreatePipelineCache = create_cache;
  call_.DestroyPipelineCache = destroy_cache;
  call_.GetPipelineCacheData = cache_data;
  call_.MergePipelineCaches = merge_caches;
  call_.CreateComputePipelines = create_pipelines;
  call_.DestroyPipeline = destroy_pipeline;
  call_.CreatePipelineLayout = create_layout;
  call_.DestroyPipelineLayout = destroy_layout;
  call_.CreateDescriptorSetLayout = create_set_layout;
  call_.DestroyDescriptorSetLayout = destroy_set_layout;
}

Pretended::~Pretended() {
  std::lock_guard lock(pretended_mutex);
  delete std::exchange(pretended, nullptr);
}

PretendedDriver Pretended::state() const {
  std::lock_guard lock(pretended_mutex);
  return *pretended;
}

void Pretended::refuse_caches(bool refuse) {
  std::lock_guard lock(pretended_mutex);
  pretended->refuses_caches = refuse;
}

void Pretended::hide_data() {
  std::lock_guard lock(pretended_mutex);
  pretended->hides_data = true;
}

Shader numbered_shader(std::uint32_t number) {
  Shader shader;
  shader.name = "number " + std::to_string(number);
  shader.words.assign(PretendedDriver::pipeline_bytes / sizeof(std::uint32_t), number);
  shader.local_size = {1, 1, 1};
  shader.bindings = 1 + number % 3;
  return shader;
}

}  // namespace fluxion::testing
