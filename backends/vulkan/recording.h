// A program's dispatches on the memory of one call, recorded once and replayed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backends/vulkan/device.h"
#include "backends/vulkan/kernel.h"
#include "backends/vulkan/memory.h"
#include "backends/vulkan/pipelines.h"
#include "backends/vulkan/queue.h"

namespace fluxion::vulkan_backend {

// A dispatch that can be recorded.
struct Step {
  Dispatch dispatch;
  std::shared_ptr<const Pipeline> pipeline;
  std::size_t kernel = 0;  // of the program
};

struct Steps {
  std::vector<Step> all;
  std::size_t kernels = 0;
  std::size_t commit_point = 0;  // of the program: its first kernel that must not be left out
};

// Where a call's memory lies.
struct CallPlaces {
  std::vector<Place> buffers;  // of the program
  Place scratch, scalars;
  Place nothing;  // bound in the place of empty buffers
};

enum class RecordedFor : std::uint8_t {
  replay,
  timing,  // each kernel alone, between time stamps
};

struct RecordingCounts {
  std::size_t dispatches = 0, barriers = 0, slices = 0;
};

// What a slice that took so long, where `estimate` seconds were expected of a device of slowness 1,
// says of the device's slowness; nothing if it is not to be believed, or does not matter.
std::optional<double> slowness_shown(double seconds, double estimate, double slowness,
                                     double slice_seconds);

class Recording final : public Work {
 public:
  // Throws OutOfMemory or DeviceError.
  Recording(LogicalDevice& device, std::shared_ptr<const Steps> steps, const CallPlaces& places,
            RecordedFor purpose);
  ~Recording() override;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // Submitted one by one, in order.
  std::span<const VkCommandBuffer> slices() const { return slices_; }
  // How many of the first of them begin before the program's commit point: a call may end there.
  std::size_t stoppable() const { return stoppable_; }
  const RecordingCounts& counts() const { return counts_; }
  // Whether a slice was found to take much longer than it should, and could be shorter: record
  // anew.
  bool too_coarse() const { return too_coarse_.load(std::memory_order_relaxed); }

  void submitting() { ++in_flight_; }
  void not_submitted() { --in_flight_; }
  void executed() noexcept override;
  // Seconds of each kernel, if recorded for timing; the work must be done.
  void read_times(std::span<double> seconds) const noexcept;

 private:
  void record(const CallPlaces& places, RecordedFor purpose);
  void begin_slice();
  void end_slice(bool last);
  void make_descriptors(const CallPlaces& places);
  void stamp(std::uint32_t query);
  std::vector<std::uint64_t> stamps(std::uint32_t count) const noexcept;
  void destroy();

  LogicalDevice& device_;
  const DeviceFunctions& call_;
  const std::shared_ptr<const Steps> steps_;
  VkCommandPool pool_ = VK_NULL_HANDLE;
  VkDescriptorPool descriptors_ = VK_NULL_HANDLE;
  VkQueryPool queries_ = VK_NULL_HANDLE;
  std::uint32_t query_count_ = 0;
  std::vector<VkDescriptorSet> sets_;  // of each step
  std::vector<VkCommandBuffer> slices_;
  std::vector<double> estimates_;  // seconds of each slice, without the device's slowness
  std::vector<bool> divisible_;    // whether a slice is more than one workgroup
  std::size_t stoppable_ = 0;
  RecordingCounts counts_;

  std::atomic<int> in_flight_{0};
  int measured_ = 0;
  std::atomic<bool> too_coarse_{false};
};

}  // namespace fluxion::vulkan_backend
