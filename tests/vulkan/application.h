// An application that uses Vulkan itself: its own instance, device, queue, buffers and semaphores
// on the software device. It knows nothing of the engine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#ifndef VK_NO_PROTOTYPES
#define VK_NO_PROTOTYPES
#endif
#include <vulkan/vulkan_core.h>

namespace fluxion::testing {

struct ApplicationOptions {
  std::uint32_t api_version = VK_API_VERSION_1_2;
  bool timeline = true;   // enables timeline semaphores
  bool optional = false;  // and the other features that the engine can use
  std::vector<const char*> extensions{};
  std::uint32_t queues = 1;
  bool validate = false;  // by the validation layer, with synchronisation, into messages()
};

class Application {
 public:
  struct Memory {
    VkBuffer buffer = VK_NULL_HANDLE;
    VkDeviceMemory memory = VK_NULL_HANDLE;
    std::byte* host = nullptr;
    std::size_t bytes = 0;
    VkBufferUsageFlags usage = 0;
    std::uint64_t number() const { return reinterpret_cast<std::uint64_t>(buffer); }
  };

  // nullptr if there is no loader, no software device, or no layer to validate with.
  static std::unique_ptr<Application> start(const ApplicationOptions& options = {});
  // Destroys everything that it made.
  ~Application();
  Application(const Application&) = delete;
  Application& operator=(const Application&) = delete;

  PFN_vkGetInstanceProcAddr get() const { return get_; }
  VkInstance instance() const { return instance_; }
  VkPhysicalDevice physical() const { return physical_; }
  VkDevice device() const { return device_; }
  std::uint32_t api_version() const { return options_.api_version; }
  std::uint32_t family() const { return 0; }
  const VkDeviceCreateInfo& device_info() const { return info_; }
  // What the validation layer has said.
  std::string messages() const;

  // Memory that the host sees.
  const Memory& make_buffer(std::size_t bytes, VkBufferUsageFlags usage);
  void destroy_buffer(const Memory& memory);
  VkSemaphore make_timeline(std::uint64_t value = 0);
  static std::uint64_t number(VkSemaphore semaphore) {
    return reinterpret_cast<std::uint64_t>(semaphore);
  }
  std::uint64_t value(VkSemaphore semaphore) const;
  void signal(VkSemaphore semaphore, std::uint64_t value) const;
  void wait(VkSemaphore semaphore, std::uint64_t value) const;
  // In queue `index`: after `wait` fills or copies, then signals; 0: no semaphore.
  void fill(std::uint32_t index, const Memory& to, std::uint32_t word, VkSemaphore signal,
            std::uint64_t signal_value);
  void copy(std::uint32_t index, VkBuffer from, std::uint64_t from_at, const Memory& to,
            std::size_t bytes, VkSemaphore wait, std::uint64_t wait_value, VkSemaphore signal,
            std::uint64_t signal_value);
  // Waits for the whole device; whether it is alive.
  bool works() const;

 private:
  explicit Application(const ApplicationOptions& options) : options_(options) {}
  bool open();
  template <class Function>
  Function find(const char* name) const;
  VkCommandBuffer begin();
  void submit(std::uint32_t index, VkCommandBuffer commands, VkSemaphore wait,
              std::uint64_t wait_value, VkSemaphore signal, std::uint64_t signal_value);

  const ApplicationOptions options_;
  void* library_ = nullptr;
  PFN_vkGetInstanceProcAddr get_ = nullptr;
  PFN_vkGetDeviceProcAddr get_device_ = nullptr;
  VkInstance instance_ = VK_NULL_HANDLE;
  VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
  VkPhysicalDevice physical_ = VK_NULL_HANDLE;
  VkDevice device_ = VK_NULL_HANDLE;
  VkDeviceCreateInfo info_{};
  VkDeviceQueueCreateInfo queue_info_{};
  std::vector<float> priorities_;
  VkPhysicalDeviceFeatures2 features_{};
  VkPhysicalDeviceVulkan11Features features_11_{};
  VkPhysicalDeviceVulkan12Features features_12_{};
  VkPhysicalDeviceTimelineSemaphoreFeatures timeline_{};
  VkCommandPool pool_ = VK_NULL_HANDLE;
  std::vector<std::unique_ptr<Memory>> buffers_;
  std::vector<VkSemaphore> semaphores_;
  struct Messages;
  std::shared_ptr<Messages> messages_;
};

}  // namespace fluxion::testing
