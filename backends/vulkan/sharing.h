// Memory and order between the engine and an application that uses the same VkDevice (OwnVulkan).
// Handles are those of vulkan.h as numbers. No byte passes through the host.
//
// The engine's work runs in one queue, in the order in which it was submitted. A compiled function
// submits its work when it is called; eval(x) submits that of lazy tensors. All functions throw
// DeviceError for a device that the application did not make.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/device.h"
#include "engine/graph/tensor.h"

namespace fluxion {

// A value of a timeline semaphore of the application's; 0: none.
struct VulkanSemaphore {
  std::uint64_t semaphore = 0;  // VkSemaphore
  std::uint64_t value = 0;
};

// Bytes of a VkBuffer.
struct VulkanRange {
  std::uint64_t buffer = 0;
  std::uint64_t offset = 0, bytes = 0;
  std::uint32_t usage = 0;  // VkBufferUsageFlags that it was made with
};

// Work that is submitted later waits until the semaphore has that value. If nobody signals it, all
// later work of the queue waits with it; after 5 minutes the device counts as lost.
void vulkan_wait(const Device& device, const VulkanSemaphore& wait);
// Signalled once everything is done that was submitted before.
void vulkan_signal(const Device& device, const VulkanSemaphore& signal);

// A tensor in the application's buffer, whose elements are as the device keeps them
// (Capabilities::storage). Nothing is copied. The offset must be a multiple of
// vulkan_alignment(device); usage must contain storage buffer, transfer source and transfer
// destination. The buffer must be of the queue's family, or concurrent, and live until the tensor
// is gone and the work that uses it is done.
Tensor vulkan_tensor(const VulkanRange& range, const TensorType& type, const Device& device);
std::uint64_t vulkan_alignment(const Device& device);

// Where the value of a tensor lies, which is evaluated if need be. Nothing is copied. The memory is
// the tensor's as long as `holds` is; use it after a semaphore of vulkan_signal() only.
struct VulkanLoan {
  VulkanRange range;
  DType stored;  // how its elements are kept
  std::shared_ptr<const void> holds;
};
VulkanLoan vulkan_range(const Tensor& tensor);

// Copies the first `bytes` of the tensor's value into the application's buffer, of which usage must
// contain transfer destination: after `wait`, before `signal`. Does not wait for either; the event
// is done when the copy is.
Event vulkan_copy(const Tensor& from, std::uint64_t bytes, const VulkanRange& to,
                  const VulkanSemaphore& wait = {}, const VulkanSemaphore& signal = {});
// Throws DeviceError, which says what is wrong, unless vulkan_copy() can write `bytes` there.
void check_vulkan_target(const Device& device, std::uint64_t bytes, const VulkanRange& to);

}  // namespace fluxion
