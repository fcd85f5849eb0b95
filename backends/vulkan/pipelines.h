// Compute pipelines: made once for each different shader, several at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "backends/vulkan/api.h"
#include "backends/vulkan/capabilities.h"
#include "backends/vulkan/driver_cache.h"
#include "backends/vulkan/fault.h"
#include "backends/vulkan/kernel.h"

namespace fluxion::vulkan_backend {

// What pipelines with as many bindings and bytes of push constants share.
struct PipelineLayout {
  VkDescriptorSetLayout bindings = VK_NULL_HANDLE;
  VkPipelineLayout layout = VK_NULL_HANDLE;
};

class Pipelines;

class Pipeline {
 public:
  Pipeline(Pipelines& owner, const Shader& shader, std::uint64_t hash);
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;
  VkPipeline handle() const { return pipeline_; }
  const PipelineLayout& layout() const { return layout_; }
  std::uint32_t bindings() const { return bindings_; }
  std::uint32_t push_bytes() const { return push_bytes_; }

 private:
  Pipelines& owner_;
  const std::uint64_t hash_;
  const std::uint32_t bindings_, push_bytes_;
  PipelineLayout layout_;
  VkPipeline pipeline_ = VK_NULL_HANDLE;
};

struct PipelineCounts {
  std::size_t made = 0;  // since the device was opened
  double seconds = 0;    // that took, of all threads together
  bool warm = false;     // whether a cache file was read
  std::size_t alive = 0;
};

// Where what was compiled is kept between runs (empty: nowhere), and how much of it, there and in
// memory.
struct CacheChoice {
  std::filesystem::path folder;
  std::size_t most_bytes = 0;
};

class Pipelines {
 public:
  using Compiling = std::function<void(std::size_t done, std::size_t all)>;

  // Reads the cache of the folder. `compiling` is that of VulkanOptions.
  Pipelines(VkDevice device, const DeviceFunctions& call, const DeviceFacts& facts,
            const CacheChoice& cache, std::shared_ptr<Faults> faults,
            Compiling compiling = nullptr);
  // Writes the cache.
  ~Pipelines();
  Pipelines(const Pipelines&) = delete;
  Pipelines& operator=(const Pipelines&) = delete;

  // One pipeline for each shader. Pipelines live as long as somebody holds them. Throws Error,
  // which names the shader, if the device can't run it or the driver refuses it.
  std::vector<std::shared_ptr<const Pipeline>> make(std::span<const Shader* const> shaders);

  // Writes the cache if something was added to it.
  void save();
  PipelineCounts counts();
  // How many pipelines were destroyed since the device was opened.
  std::size_t dropped() const { return dropped_; }

 private:
  friend class Pipeline;
  struct Entry {
    Shader shader;
    std::weak_ptr<const Pipeline> pipeline;
  };

  void check_fits(const Shader& shader) const;
  PipelineLayout layout_of(std::uint32_t bindings, std::uint32_t push_bytes);
  std::shared_ptr<const Pipeline> find(std::uint64_t hash, const Shader& shader);
  // Drops the entries with this hash whose pipelines are gone.
  void forget(std::uint64_t hash);
  std::vector<std::byte> saved(std::size_t most_bytes) const;

  const VkDevice device_;
  const DeviceFunctions& call_;
  const DeviceFacts& facts_;
  const std::shared_ptr<Faults> faults_;
  const std::filesystem::path file_;  // empty: no cache
  const Compiling compiling_;
  DriverCache cache_;

  std::mutex mutex_;
  // As many as there are numbers of bindings and of push constants: few, so they stay.
  std::map<std::pair<std::uint32_t, std::uint32_t>, PipelineLayout> layouts_;
  std::unordered_multimap<std::uint64_t, Entry> entries_;  // of the pipelines alive
  PipelineCounts counts_;
  std::size_t unsaved_ = 0;
  std::atomic<std::size_t> dropped_{0};
  double saved_seconds_ = 0;  // of counts_.seconds, at the last save
};

}  // namespace fluxion::vulkan_backend
