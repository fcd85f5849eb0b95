// A program ready to run: its kernels lowered, their pipelines made, recordings for the memory that
// it was last called with.
#pragma once

#include <memory>
#include <vector>

#include "backends/vulkan/device.h"
#include "backends/vulkan/kernel.h"
#include "backends/vulkan/recording.h"
#include "engine/backend.h"

namespace fluxion::vulkan_backend {

// Memory of the device.
class VulkanBuffer final : public Buffer {
 public:
  VulkanBuffer(std::size_t bytes, const Backend* owner, std::shared_ptr<LogicalDevice> device);
  // Over bytes that were imported; it releases them.
  VulkanBuffer(const Place& imported, const Backend* owner, std::shared_ptr<LogicalDevice> device);
  ~VulkanBuffer() override;
  const Place& place() const { return place_; }

 private:
  const std::shared_ptr<LogicalDevice> device_;
  MemoryRange range_;
  Place place_;  // the range without its guards, or what was imported
};

std::shared_ptr<Timeline> timeline_of(const std::shared_ptr<LogicalDevice>& device);

// What each kernel becomes, several at a time. Throws Error for what the device can't run.
std::vector<KernelWork> lower(const Program& program, const Storage& storage,
                              const ShaderTarget& target);

// `work` is that of each kernel. Throws Error for what the device can't run.
std::unique_ptr<Executable> make_executable(std::shared_ptr<LogicalDevice> device,
                                            const Backend& owner, const Program& program,
                                            std::vector<KernelWork> work);

// What the last recording of an executable of this backend holds.
RecordingCounts recorded(const Executable& executable);

}  // namespace fluxion::vulkan_backend
