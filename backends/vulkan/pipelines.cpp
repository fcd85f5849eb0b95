#include "backends/vulkan/pipelines.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <thread>

#include "backends/vulkan/pipeline_cache.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

namespace {

std::uint64_t hash_of(const Shader& shader) {
  constexpr std::uint64_t prime = 0x9e3779b97f4a7c15;
  std::uint64_t hash = shader.words.size() * prime + shader.bindings;
  for (const std::uint32_t word : shader.words) {
    hash = (hash ^ word) * prime;
    hash ^= hash >> 32;
  }
  return (hash ^ shader.push_bytes) * prime + shader.subgroup_size;
}

// A process that ends by a signal loses no more than this of compiling.
constexpr double worth_saving_seconds = 2;

// What pipelines are made of; the name of the family is not.
bool same_pipeline(const Shader& a, const Shader& b) {
  return a.bindings == b.bindings && a.push_bytes == b.push_bytes &&
         a.subgroup_size == b.subgroup_size && a.local_size == b.local_size && a.words == b.words;
}

}  // namespace

// ---- Pipeline

Pipeline::Pipeline(Pipelines& owner, const Shader& shader, std::uint64_t hash)
    : owner_(owner),
      hash_(hash),
      bindings_(shader.bindings),
      push_bytes_(shader.push_bytes),
      layout_(owner.layout_of(shader.bindings, shader.push_bytes)) {
  const DeviceFunctions& call = owner_.call_;
  const std::string doing = "compile the kernel '" + shader.name + "'";
  auto source = structure<VkShaderModuleCreateInfo>(VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO);
  source.codeSize = shader.words.size() * sizeof(std::uint32_t);
  source.pCode = shader.words.data();
  VkShaderModule module = VK_NULL_HANDLE;
  check(call.CreateShaderModule(owner_.device_, &source, nullptr, &module), doing);
  auto size = structure<VkPipelineShaderStageRequiredSubgroupSizeCreateInfo>(
      VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO);
  size.requiredSubgroupSize = shader.subgroup_size;
  auto info =
      structure<VkComputePipelineCreateInfo>(VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO);
  info.stage = structure<VkPipelineShaderStageCreateInfo>(
      VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO);
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.module = module;
  info.stage.pName = "main";
  if (shader.subgroup_size != 0) {
    info.stage.pNext = &size;
    if (shader.local_size[0] % shader.subgroup_size == 0)
      info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
  }
  info.flags = VK_PIPELINE_CREATE_DISPATCH_BASE;  // long dispatches are divided
  info.layout = layout_.layout;
  const std::shared_ptr<const DriverCache::Handle> cache = owner_.cache_.current();
  const VkResult result = owner_.faults_ && owner_.faults_->pipeline.due()
                              ? VK_ERROR_UNKNOWN
                              : call.CreateComputePipelines(owner_.device_, cache->get(), 1, &info,
                                                            nullptr, &pipeline_);
  call.DestroyShaderModule(owner_.device_, module, nullptr);
  check(result, doing);
}

Pipeline::~Pipeline() {
  owner_.call_.DestroyPipeline(owner_.device_, pipeline_, nullptr);
  owner_.forget(hash_);
  ++owner_.dropped_;
}

// ---- Pipelines

Pipelines::Pipelines(VkDevice device, const DeviceFunctions& call, const DeviceFacts& facts,
                     const CacheChoice& cache, std::shared_ptr<Faults> faults, Compiling compiling)
    : device_(device),
      call_(call),
      facts_(facts),
      faults_(std::move(faults)),
      file_(cache.folder.empty() ? cache.folder : cache_file(cache.folder, facts)),
      compiling_(std::move(compiling)),
      cache_(device, call, cache.most_bytes, saved(cache.most_bytes)) {
  counts_.warm = cache_.warm();
}

std::vector<std::byte> Pipelines::saved(std::size_t most_bytes) const {
  if (file_.empty()) return {};
  return read_cache(file_, facts_, CacheKind::pipelines, most_bytes)
      .value_or(std::vector<std::byte>{});
}

Pipelines::~Pipelines() {
  try {
    save();
  } catch (...) {  // a cache that can't be written costs time, and nothing else
  }
  for (const auto& [key, layout] : layouts_) {
    call_.DestroyPipelineLayout(device_, layout.layout, nullptr);
    call_.DestroyDescriptorSetLayout(device_, layout.bindings, nullptr);
  }
}

void Pipelines::check_fits(const Shader& shader) const {
  const ShaderTarget& target = facts_.shaders;
  const auto refuse = [&](const std::string& why) {
    throw Error("vulkan: the kernel '" + shader.name + "' does not fit the device: " + why);
  };
  std::uint64_t invocations = 1;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    invocations *= shader.local_size[axis];
    if (shader.local_size[axis] > target.max_local_size[axis])
      refuse("its workgroup is " + std::to_string(shader.local_size[axis]) + " wide on axis " +
             std::to_string(axis) + ", at most " + std::to_string(target.max_local_size[axis]));
  }
  if (invocations > target.max_invocations)
    refuse("its workgroup has " + std::to_string(invocations) + " invocations, at most " +
           std::to_string(target.max_invocations));
  if (shader.bindings > facts_.max_storage_buffers)
    refuse("it has " + std::to_string(shader.bindings) + " storage buffers, at most " +
           std::to_string(facts_.max_storage_buffers));
  if (shader.push_bytes > facts_.max_push_bytes)
    refuse("it has " + std::to_string(shader.push_bytes) + " bytes of push constants, at most " +
           std::to_string(facts_.max_push_bytes));
  if (shader.subgroup_size != 0 &&
      (!target.subgroup_size_control || shader.subgroup_size < facts_.min_subgroup_size ||
       shader.subgroup_size > facts_.max_subgroup_size))
    refuse("it needs subgroups of " + std::to_string(shader.subgroup_size));
}

PipelineLayout Pipelines::layout_of(std::uint32_t bindings, std::uint32_t push_bytes) {
  std::lock_guard lock(mutex_);
  PipelineLayout& layout = layouts_[{bindings, push_bytes}];
  if (layout.layout) return layout;
  std::vector<VkDescriptorSetLayoutBinding> list(bindings);
  for (std::uint32_t i = 0; i < bindings; ++i)
    list[i] = {i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, nullptr};
  auto set = structure<VkDescriptorSetLayoutCreateInfo>(
      VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO);
  set.bindingCount = bindings;
  set.pBindings = list.data();
  if (!layout.bindings)
    check(call_.CreateDescriptorSetLayout(device_, &set, nullptr, &layout.bindings),
          "make a descriptor set layout");
  const VkPushConstantRange push{VK_SHADER_STAGE_COMPUTE_BIT, 0, push_bytes};
  auto info = structure<VkPipelineLayoutCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO);
  info.setLayoutCount = 1;
  info.pSetLayouts = &layout.bindings;
  info.pushConstantRangeCount = push_bytes > 0 ? 1 : 0;
  info.pPushConstantRanges = &push;
  check(call_.CreatePipelineLayout(device_, &info, nullptr, &layout.layout),
        "make a pipeline layout");
  return layout;
}

std::shared_ptr<const Pipeline> Pipelines::find(std::uint64_t hash, const Shader& shader) {
  std::lock_guard lock(mutex_);
  const auto [begin, end] = entries_.equal_range(hash);
  for (auto entry = begin; entry != end; ++entry)
    if (same_pipeline(entry->second.shader, shader))
      if (auto pipeline = entry->second.pipeline.lock()) return pipeline;
  return nullptr;
}

void Pipelines::forget(std::uint64_t hash) {
  std::lock_guard lock(mutex_);
  const auto [begin, end] = entries_.equal_range(hash);
  for (auto entry = begin; entry != end;)
    entry = entry->second.pipeline.expired() ? entries_.erase(entry) : std::next(entry);
}

std::vector<std::shared_ptr<const Pipeline>> Pipelines::make(
    std::span<const Shader* const> shaders) {
  std::vector<std::shared_ptr<const Pipeline>> result(shaders.size());
  std::vector<std::uint64_t> hashes(shaders.size());
  std::vector<std::size_t> missing;  // the first of each shader that has no pipeline yet
  std::unordered_multimap<std::uint64_t, std::size_t> first;
  std::vector<std::size_t> twin(shaders.size());
  for (std::size_t i = 0; i < shaders.size(); ++i) {
    twin[i] = i;
    hashes[i] = hash_of(*shaders[i]);
    const auto [begin, end] = first.equal_range(hashes[i]);
    for (auto each = begin; each != end; ++each)
      if (same_pipeline(*shaders[each->second], *shaders[i])) twin[i] = each->second;
    if (twin[i] != i) continue;
    first.emplace(hashes[i], i);
    check_fits(*shaders[i]);
    result[i] = find(hashes[i], *shaders[i]);
    if (!result[i]) missing.push_back(i);
  }

  std::mutex progress_mutex;
  std::size_t done = 0;
  if (compiling_ && !missing.empty()) compiling_(0, missing.size());

  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    for (std::size_t m = next++; m < missing.size() && !failed; m = next++) {
      const std::size_t i = missing[m];
      try {
        const auto start = std::chrono::steady_clock::now();
        result[i] = std::make_shared<const Pipeline>(*this, *shaders[i], hashes[i]);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        {
          std::lock_guard lock(mutex_);
          entries_.emplace(hashes[i], Entry{*shaders[i], result[i]});
          ++counts_.made;
          ++unsaved_;
          counts_.seconds += took.count();
        }
        cache_.note_made(shaders[i]->words.size() * sizeof(std::uint32_t));
        if (!compiling_) continue;
        std::lock_guard lock(progress_mutex);
        compiling_(++done, missing.size());
      } catch (...) {
        std::lock_guard lock(failure_mutex);
        if (!failure) failure = std::current_exception();
        failed = true;
      }
    }
  };
  const std::size_t threads =
      std::min<std::size_t>({missing.size(), 8, std::max(1u, std::thread::hardware_concurrency())});
  {
    std::vector<std::jthread> others;
    try {
      for (std::size_t t = 1; t < threads; ++t) others.emplace_back(work);
    } catch (const std::system_error&) {  // no more threads: those that there are do it
    }
    work();
  }
  if (failure) std::rethrow_exception(failure);
  for (std::size_t i = 0; i < shaders.size(); ++i) result[i] = result[twin[i]];
  bool worth_saving = false;
  {
    std::lock_guard lock(mutex_);
    worth_saving = counts_.seconds - saved_seconds_ > worth_saving_seconds;
  }
  if (worth_saving) save();
  return result;
}

void Pipelines::save() {
  if (file_.empty()) return;
  {
    std::lock_guard lock(mutex_);
    if (unsaved_ == 0) return;
    unsaved_ = 0;
    saved_seconds_ = counts_.seconds;
  }
  // Another process may have saved what it made: what is written holds both.
  const std::vector<std::byte> data = cache_.merged_with(saved(cache_.most_bytes()));
  if (!data.empty()) write_cache(file_, data, facts_);
}

PipelineCounts Pipelines::counts() {
  std::lock_guard lock(mutex_);
  PipelineCounts counts = counts_;
  counts.alive = entries_.size();
  return counts;
}

}  // namespace fluxion::vulkan_backend
