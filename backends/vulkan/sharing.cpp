#include "backends/vulkan/sharing.h"

#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/program.h"
#include "engine/error.h"

namespace fluxion {

namespace vulkan_backend {

namespace {

// Handles are pointers on 64-bit systems and numbers on others.
template <class Handle>
Handle handle_of(std::uint64_t number) {
  if constexpr (std::is_pointer_v<Handle>)
    return reinterpret_cast<Handle>(static_cast<std::uintptr_t>(number));
  else
    return number;
}

template <class Handle>
std::uint64_t number_of(Handle handle) {
  if constexpr (std::is_pointer_v<Handle>)
    return reinterpret_cast<std::uintptr_t>(handle);
  else
    return handle;
}

constexpr VkBufferUsageFlags tensor_usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                            VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                            VK_BUFFER_USAGE_TRANSFER_DST_BIT;

const std::shared_ptr<LogicalDevice>& shared_device(const Device& device) {
  const std::shared_ptr<LogicalDevice>& logical = logical_device(device);
  if (!logical->is_own())
    throw DeviceError("'" + device.name() +
                      "' was opened by the engine: memory and semaphores are shared on a VkDevice "
                      "of the application's own alone (OwnVulkan)");
  return logical;
}

void check_range(const VulkanRange& range, std::uint64_t bytes, std::uint64_t alignment,
                 VkBufferUsageFlags usage) {
  const auto refuse = [](const std::string& why) {
    throw DeviceError("vulkan: the application's buffer " + why);
  };
  if (range.buffer == 0) refuse("is missing (a VkBuffer)");
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (range.offset > most || range.bytes > most - range.offset)
    refuse("can't have " + std::to_string(range.bytes) + " bytes from byte " +
           std::to_string(range.offset));
  if (range.bytes < bytes)
    refuse("has " + std::to_string(range.bytes) + " bytes from byte " +
           std::to_string(range.offset) + ", and " + std::to_string(bytes) + " are needed");
  if (range.offset % alignment != 0)
    refuse("begins at byte " + std::to_string(range.offset) + ", which is no multiple of " +
           std::to_string(alignment));
  constexpr std::pair<VkBufferUsageFlags, const char*> names[] = {
      {VK_BUFFER_USAGE_STORAGE_BUFFER_BIT, "VK_BUFFER_USAGE_STORAGE_BUFFER_BIT"},
      {VK_BUFFER_USAGE_TRANSFER_SRC_BIT, "VK_BUFFER_USAGE_TRANSFER_SRC_BIT"},
      {VK_BUFFER_USAGE_TRANSFER_DST_BIT, "VK_BUFFER_USAGE_TRANSFER_DST_BIT"}};
  for (const auto& [flag, name] : names)
    if ((usage & flag) && !(range.usage & flag))
      refuse("was made without the usage " + std::string(name));
}

Semaphores semaphores_of(const VulkanSemaphore& wait, const VulkanSemaphore& signal) {
  return {handle_of<VkSemaphore>(wait.semaphore), wait.value,
          handle_of<VkSemaphore>(signal.semaphore), signal.value};
}

std::shared_ptr<Buffer> value_of(const Tensor& tensor) {
  eval(tensor);
  return tensor.node()->value(tensor.output());
}

constexpr std::uint64_t copy_alignment = 4;

}  // namespace

}  // namespace vulkan_backend

using namespace vulkan_backend;

void vulkan_wait(const Device& device, const VulkanSemaphore& wait) {
  if (wait.semaphore == 0) return;
  shared_device(device)->queue().submit(nullptr, {}, nullptr, semaphores_of(wait, {}));
}

void vulkan_signal(const Device& device, const VulkanSemaphore& signal) {
  if (signal.semaphore == 0) return;
  shared_device(device)->queue().submit(nullptr, {}, nullptr, semaphores_of({}, signal));
}

std::uint64_t vulkan_alignment(const Device& device) {
  return static_cast<std::uint64_t>(logical_device(device)->facts().binding_alignment);
}

Tensor vulkan_tensor(const VulkanRange& range, const TensorType& type, const Device& device) {
  const std::shared_ptr<LogicalDevice>& logical = shared_device(device);
  const std::size_t bytes = bytes_of(type, device.backend().capabilities().storage);
  check_range(range, bytes, vulkan_alignment(device), tensor_usage);
  if (bytes == 0) return Tensor::from_buffer(device.backend().allocate(type), type, device);
  const Place place = logical->memory().import(handle_of<VkBuffer>(range.buffer),
                                               static_cast<std::int64_t>(range.offset),
                                               static_cast<std::int64_t>(bytes));
  std::shared_ptr<Buffer> buffer;
  try {
    buffer = std::make_shared<VulkanBuffer>(place, &device.backend(), logical);
  } catch (...) {
    logical->memory().release(place);
    throw;
  }
  return Tensor::from_buffer(std::move(buffer), type, device);
}

VulkanLoan vulkan_range(const Tensor& tensor) {
  shared_device(tensor.device());
  std::shared_ptr<Buffer> buffer = value_of(tensor);
  const Place& place = static_cast<const VulkanBuffer&>(*buffer).place();
  const Storage& storage = tensor.device().backend().capabilities().storage;
  return {{number_of(place.buffer), static_cast<std::uint64_t>(place.offset),
           bytes_of(tensor.type(), storage), tensor_usage},
          storage.kept(tensor.dtype()),
          std::move(buffer)};
}

void check_vulkan_target(const Device& device, std::uint64_t bytes, const VulkanRange& to) {
  shared_device(device);
  check_range(to, bytes, copy_alignment, VK_BUFFER_USAGE_TRANSFER_DST_BIT);
}

Event vulkan_copy(const Tensor& from, std::uint64_t bytes, const VulkanRange& to,
                  const VulkanSemaphore& wait, const VulkanSemaphore& signal) {
  const Device& device = from.device();
  const std::shared_ptr<LogicalDevice>& logical = shared_device(device);
  const std::uint64_t there = bytes_of(from.type(), device.backend().capabilities().storage);
  if (bytes > there)
    throw DeviceError("vulkan: a copy of " + std::to_string(bytes) + " bytes of " +
                      to_string(from.type()) + ", which has " + std::to_string(there));
  check_vulkan_target(device, bytes, to);
  const Semaphores semaphores = semaphores_of(wait, signal);
  Queue& queue = logical->queue();
  if (bytes == 0) return {timeline_of(logical), queue.submit(nullptr, {}, nullptr, semaphores)};
  const std::shared_ptr<Buffer> value = value_of(from);
  const Place target{0, handle_of<VkBuffer>(to.buffer), static_cast<std::int64_t>(to.offset),
                     static_cast<std::int64_t>(bytes), nullptr};
  const Event event{timeline_of(logical),
                    submit_once(
                        queue, logical->call(),
                        [&](VkCommandBuffer commands) {
                          record_copy(logical->call(), commands,
                                      static_cast<const VulkanBuffer&>(*value).place(), 0, target,
                                      0, static_cast<std::size_t>(bytes));
                        },
                        nullptr, semaphores)};
  value->note_read(event);
  return event;
}

}  // namespace fluxion
