// A logical device: its queue, memory and pipelines. Whoever uses one of them holds it.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>

#include "backends/vulkan/api.h"
#include "backends/vulkan/capabilities.h"
#include "backends/vulkan/fault.h"
#include "backends/vulkan/instance.h"
#include "backends/vulkan/memory.h"
#include "backends/vulkan/pipelines.h"
#include "backends/vulkan/queue.h"
#include "backends/vulkan/tile_speed.h"
#include "backends/vulkan/vulkan.h"

namespace fluxion::vulkan_backend {

// What tests ask for besides.
struct DeviceOptions {
  VulkanOptions choice{};
  std::function<void(DeviceFacts&)> adjust{};  // after the quirks: masks capabilities
  std::shared_ptr<Faults> faults{};
  // Takes the messages of the validation layer, which is on if this is given.
  std::function<void(std::string_view)> validation{};
  // Takes a message for each write outside of a buffer or temporary; if this is given, they are
  // surrounded with guard bands, and calls run one by one. Needs memory that the host sees.
  std::function<void(std::string_view)> guards{};
  // The time that one submission may take, as far as is known before.
  double slice_seconds = 0.1;
  // Where times of tiles come from, in place of the device.
  std::optional<TileTiming> tile_timing{};
};

// Whether tiles are measured at their first use: what the options say, else the environment's
// FLUXION_VULKAN_TUNE (on or off), else true for GPUs whose measurements are kept in `folder`.
// Throws DeviceError for another word.
bool tunes(const VulkanOptions& options, const std::filesystem::path& folder,
           const DeviceFacts& facts);

// The number of the device that the options, the environment or the preference of vulkan.h choose.
// Throws DeviceError, with what there is, if that can't be used.
std::size_t choose_device(const std::vector<DeviceFacts>& all, const VulkanOptions& options);

class LogicalDevice : public std::enable_shared_from_this<LogicalDevice> {
 public:
  explicit LogicalDevice(const DeviceOptions& options);
  ~LogicalDevice();
  LogicalDevice(const LogicalDevice&) = delete;
  LogicalDevice& operator=(const LogicalDevice&) = delete;

  const DeviceOptions& options() const { return options_; }
  const DeviceFacts& facts() const { return facts_; }
  const DeviceFunctions& call() const { return call_; }
  VkDevice handle() const { return device_; }
  // Whether the application made it, and will destroy it.
  bool is_own() const { return options_.choice.own.has_value(); }
  Queue& queue() { return *queue_; }
  Memory& memory() { return *memory_; }
  Pipelines& pipelines() { return *pipelines_; }
  // What kernels are made for: facts().shaders, with what was measured of tiles, which is read from
  // disk or, if it is not there, measured when a program first has a `large_product`. Any thread.
  const ShaderTarget& shaders(Backend& backend, bool large_product);
  // Submits nothing, where many pipelines were destroyed since the last submission and the driver
  // waits for one to free them. Throws DeviceError.
  void let_driver_free();
  // What the driver says is free, if it says so.
  std::optional<std::uint64_t> free_bytes() const;

  // Measured over estimated seconds of submissions: what recording multiplies its estimates by.
  double slowness() const { return slowness_.load(std::memory_order_relaxed); }
  void note_slowness(double measured);
  // How many programs were recorded since the device was opened.
  std::size_t recordings() const { return recordings_; }
  void note_recording() { ++recordings_; }

 private:
  void choose();
  void take_own();
  void read_factors(const std::filesystem::path& folder);
  void create();
  void destroy();

  const DeviceOptions options_;
  std::unique_ptr<const Instance> instance_;
  VkPhysicalDevice physical_ = VK_NULL_HANDLE;
  DeviceFacts facts_;
  VkDevice device_ = VK_NULL_HANDLE;
  DeviceFunctions call_;
  std::unique_ptr<Queue> queue_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Pipelines> pipelines_;
  bool tunes_ = false;
  std::filesystem::path factors_file_;  // empty: they are not kept
  std::once_flag tuned_once_;
  ShaderTarget tuned_;
  std::atomic<bool> tuned_ready_{false}, tuning_{false};
  std::mutex freed_mutex_;
  std::size_t freed_ = 0;             // pipelines(), destroyed before
  std::uint64_t freed_at_point_ = 0;  // this point was submitted
  std::atomic<double> slowness_{1};
  std::atomic<std::size_t> recordings_{0};
};

}  // namespace fluxion::vulkan_backend
