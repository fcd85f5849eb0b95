// The device's queue: work runs in the order of submission, and each submission is a point of the
// timeline.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "backends/vulkan/api.h"
#include "backends/vulkan/capabilities.h"
#include "backends/vulkan/fault.h"
#include "engine/event.h"

namespace fluxion::vulkan_backend {

// What a submission uses: kept until the device has executed it.
class Work {
 public:
  virtual ~Work() = default;
  // Called once for each submission, after it was executed and before its point counts as reached.
  virtual void executed() noexcept {}
};

// Command buffers that are recorded for one submission and used again after it.
class OnceCommands {
 public:
  VkCommandBuffer commands = VK_NULL_HANDLE;

 private:
  friend class Queue;
  VkCommandPool pool = VK_NULL_HANDLE;
  std::uint64_t busy_until = 0;
};

// Which queue of its family, and what is called around each use of it, if anything is.
struct QueueSharing {
  std::uint32_t index = 0;
  std::function<void()> lock{}, unlock{};
};

// Timeline semaphores of the application; null: none.
struct Semaphores {
  VkSemaphore wait = VK_NULL_HANDLE;
  std::uint64_t wait_value = 0;
  VkSemaphore signal = VK_NULL_HANDLE;
  std::uint64_t signal_value = 0;
};

// Lets submit() end early.
struct Stop {
  std::stop_token token{};
  std::size_t slices = 0;  // those that may be left out, from some one of them on, are the first
};

class Queue final : public Timeline {
 public:
  // A device that makes no progress for this long counts as lost.
  static constexpr std::chrono::seconds longest_silence{300};
  static constexpr std::chrono::seconds wait_slice{10};
  // submit() waits for the oldest when as many submissions are on their way.
  static constexpr std::size_t most_in_flight = 256;

  Queue(VkDevice device, const DeviceFunctions& call, const DeviceFacts& facts,
        std::shared_ptr<Faults> faults, QueueSharing sharing = {});
  ~Queue() override;
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  bool reached(std::uint64_t point) override;
  void wait(std::uint64_t point) override;

  // The last point that is known to be reached; never asks the device.
  std::uint64_t done() const { return done_.load(std::memory_order_acquire); }
  // The last point that was given.
  std::uint64_t submitted() const { return submitted_.load(std::memory_order_acquire); }
  // Whether it is dead because it made no progress: then its work may never end.
  bool silent() const { return silent_; }
  // Returns when all work is done, or the device is dead.
  void wait_until_idle() noexcept;
  // Lets go of all work, which nobody waits for any more; the device must be idle.
  void forget();
  // Asks the device, and finishes what it has executed.
  void collect();
  // Throws DeviceError if the device is dead.
  void check_alive() const;

  // Begins commands for one submission; give them to submit() or give_back().
  OnceCommands* begin_once();
  void give_back(OnceCommands* once) noexcept;

  // Submits `first` (if given; ended here) and then each slice by itself; the last one's point is
  // returned, and belongs to `work`. All of it, and what is submitted later, waits for one of the
  // semaphores; the other is signalled when all of it, and what was submitted earlier, is done.
  // Where it may be stopped, it waits so that no more than one slice lies behind the one that runs,
  // and throws Cancelled, "nothing written", in place of the next one that it may leave out, when
  // those before it are done. Throws OutOfMemory or DeviceError: "nothing written" if
  // nothing was submitted, else "state lost" or "device dead".
  std::uint64_t submit(OnceCommands* first, std::span<const VkCommandBuffer> slices,
                       const std::shared_ptr<Work>& work, const Semaphores& semaphores = {},
                       const Stop& stop = {});

 private:
  void wait_to_continue(const Stop& stop, std::size_t slice, std::size_t slices);
  class Fence;
  struct Pending {
    std::uint64_t point = 0;
    std::shared_ptr<Work> work;
    bool last = false;
    std::shared_ptr<Fence> fence;  // without timeline semaphores
  };

  // Asks the device; pending_mutex_ is held, and some work is pending.
  std::uint64_t completed();
  void submit_one(std::span<const VkCommandBuffer> commands, const std::shared_ptr<Work>& work,
                  bool last, const Semaphores& semaphores);
  // Of the timeline semaphore.
  VkResult wait_for(std::uint64_t point, std::uint64_t nanoseconds) const;
  // Waits until the counter has moved to `point`, or for `wait_slice`.
  VkResult wait_slice_for(std::uint64_t point);
  void die(std::string_view why);
  [[noreturn]] void throw_dead() const;

  const VkDevice device_;
  const DeviceFunctions& call_;
  const std::shared_ptr<Faults> faults_;
  const std::uint32_t family_;
  const QueueSharing sharing_;
  VkQueue queue_ = VK_NULL_HANDLE;
  VkSemaphore semaphore_ = VK_NULL_HANDLE;  // null: fences

  std::mutex submit_mutex_;  // taken before pending_mutex_
  std::atomic<std::uint64_t> submitted_{0}, done_{0};

  mutable std::mutex pending_mutex_;
  std::vector<Pending> ring_;  // of most_in_flight
  std::size_t first_ = 0, count_ = 0;
  std::vector<std::unique_ptr<OnceCommands>> once_;  // all
  std::vector<OnceCommands*> resting_;               // those that nobody records

  mutable std::mutex death_mutex_;
  std::atomic<bool> dead_{false}, silent_{false};
  std::string death_;
};

// Everything that was submitted before is done and visible before anything that comes after.
void record_full_barrier(const DeviceFunctions& call, VkCommandBuffer commands);
// What was written is visible to the host once the submission is done.
void record_host_barrier(const DeviceFunctions& call, VkCommandBuffer commands);

// Submits what `record` records, between barriers.
template <class Record>
std::uint64_t submit_once(Queue& queue, const DeviceFunctions& call, const Record& record,
                          const std::shared_ptr<Work>& work, const Semaphores& semaphores = {}) {
  OnceCommands* const once = queue.begin_once();
  record_full_barrier(call, once->commands);
  record(once->commands);
  record_host_barrier(call, once->commands);
  return queue.submit(once, {}, work, semaphores);
}

}  // namespace fluxion::vulkan_backend
