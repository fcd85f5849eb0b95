// The driver's own cache of compiled pipelines, with a bound.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "backends/vulkan/api.h"

namespace fluxion::vulkan_backend {

// A VkPipelineCache keeps whatever was made with it, used or not, and nothing can be taken out of
// it. So when its data, or the shaders that were compiled with it, are larger than `most_bytes`, a
// fresh one takes its place; the old one goes when the last pipeline that is being made with it is
// done. (Shaders count, because llvmpipe keeps them there and says that it has no data.) Any
// thread.
class DriverCache {
 public:
  // One VkPipelineCache.
  class Handle {
   public:
    // Throws OutOfMemory or DeviceError; also if the driver does not take `data`.
    Handle(VkDevice device, const DeviceFunctions& call, std::span<const std::byte> data = {});
    ~Handle();
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;

    VkPipelineCache get() const { return cache_; }
    std::size_t bytes() const;            // of its data; 0 if the driver does not say
    std::vector<std::byte> data() const;  // nothing if the driver does not give them

   private:
    const VkDevice device_;
    const DeviceFunctions& call_;
    VkPipelineCache cache_ = VK_NULL_HANDLE;
  };

  // Starts with `data`, unless they are too many or the driver does not take them.
  DriverCache(VkDevice device, const DeviceFunctions& call, std::size_t most_bytes,
              std::span<const std::byte> data);

  bool warm() const { return warm_; }  // whether it took the data that it was given
  // What pipelines are made with now. Hold it while one is made.
  std::shared_ptr<const Handle> current();
  // Says that a pipeline was made of a shader with so many bytes.
  void note_made(std::size_t shader_bytes);
  // Its data together with those that were saved; without them, if all are too many; nothing, if
  // its own are.
  std::vector<std::byte> merged_with(std::span<const std::byte> saved);
  std::size_t most_bytes() const { return most_bytes_; }

 private:
  const VkDevice device_;
  const DeviceFunctions& call_;
  const std::size_t most_bytes_;
  bool warm_ = false;

  std::mutex mutex_;
  std::shared_ptr<const Handle> current_;
  std::size_t made_ = 0;          // since its size was asked for
  std::size_t shader_bytes_ = 0;  // of all shaders compiled with it
};

}  // namespace fluxion::vulkan_backend
