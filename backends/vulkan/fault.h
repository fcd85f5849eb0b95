// Faults on purpose, for tests: a device that was opened with it fails as told.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace fluxion::vulkan_backend {

// Counts down with each call; the call that reaches zero fails, and so do all after it if `lasts`.
// Negative: never.
class CountedFault {
 public:
  void fail_at(std::int64_t call, bool lasts = false) {
    lasts_ = lasts;
    left_ = call;
  }
  void never() { left_ = -1; }
  bool due() {
    std::int64_t left = left_.load();
    while (left > 0 && !left_.compare_exchange_weak(left, left - 1)) {
    }
    if (left == 1 && !lasts_) left_ = -1;
    return left == 1 || left == 0;
  }

 private:
  std::atomic<std::int64_t> left_{-1};
  std::atomic<bool> lasts_{false};
};

struct Faults {
  CountedFault memory;                    // vkAllocateMemory: out of device memory
  CountedFault submit;                    // vkQueueSubmit: device lost
  CountedFault refuse;                    // vkQueueSubmit: out of device memory
  CountedFault wait;                      // a wait for the device: device lost
  std::atomic<bool> silent{false};        // no work is seen to end, and waits take no time
  std::atomic<bool> runaway{false};       // the timeline is seen at its largest value
  CountedFault pipeline;                  // vkCreateComputePipelines: unknown error
  CountedFault recording;                 // making a recording: out of host memory
  std::function<void()> before_submit{};  // called before each vkQueueSubmit
};

}  // namespace fluxion::vulkan_backend
