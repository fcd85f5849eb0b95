#include "tests/vulkan/application.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <stdexcept>

namespace fluxion::testing {

struct Application::Messages {
  std::mutex mutex;
  std::string all;
};

namespace {

void require(VkResult result, const char* doing) {
  if (result != VK_SUCCESS)
    throw std::runtime_error(std::string("the application can't ") + doing + ": VkResult " +
                             std::to_string(result));
}

template <class Messages>
VKAPI_ATTR VkBool32 VKAPI_CALL listen(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                      VkDebugUtilsMessageTypeFlagsEXT,
                                      const VkDebugUtilsMessengerCallbackDataEXT* data,
                                      void* user) {
  auto& to = *static_cast<Messages*>(user);
  std::lock_guard lock(to.mutex);
  to.all += std::string(data->pMessage) + "\n";
  return VK_FALSE;
}

}  // namespace

template <class Function>
Function Application::find(const char* name) const {
  return reinterpret_cast<Function>(device_ ? get_device_(device_, name) : get_(instance_, name));
}
#define FLUXION_FIND(name) find<PFN_vk##name>("vk" #name)

std::unique_ptr<Application> Application::start(const ApplicationOptions& options) {
  std::unique_ptr<Application> application(new Application(options));
  if (!application->open()) return nullptr;
  return application;
}

bool Application::open() {
  library_ = ::dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library_) return false;
  get_ = reinterpret_cast<PFN_vkGetInstanceProcAddr>(::dlsym(library_, "vkGetInstanceProcAddr"));
  if (!get_) return false;

  // ---- the instance
  VkApplicationInfo application{};
  application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
  application.apiVersion = options_.api_version;
  VkInstanceCreateInfo instance{};
  instance.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
  instance.pApplicationInfo = &application;
  messages_ = std::make_shared<Messages>();
  VkDebugUtilsMessengerCreateInfoEXT messenger{};
  messenger.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT;
  messenger.messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                              VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  messenger.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT;
  messenger.pfnUserCallback = listen<Messages>;
  messenger.pUserData = messages_.get();
  const VkValidationFeatureEnableEXT check =
      VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
  VkValidationFeaturesEXT validation{};
  validation.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT;
  validation.pNext = &messenger;
  validation.enabledValidationFeatureCount = 1;
  validation.pEnabledValidationFeatures = &check;
  const char* const layer = "VK_LAYER_KHRONOS_validation";
  const char* const debug = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
  if (options_.validate) {
    instance.pNext = &validation;
    instance.enabledLayerCount = 1;
    instance.ppEnabledLayerNames = &layer;
    instance.enabledExtensionCount = 1;
    instance.ppEnabledExtensionNames = &debug;
  }
  if (FLUXION_FIND(CreateInstance)(&instance, nullptr, &instance_) != VK_SUCCESS) return false;
  if (options_.validate)
    require(FLUXION_FIND(CreateDebugUtilsMessengerEXT)(instance_, &messenger, nullptr, &messenger_),
            "listen to the validation layer");

  // ---- the software device
  std::uint32_t count = 0;
  require(FLUXION_FIND(EnumeratePhysicalDevices)(instance_, &count, nullptr), "list devices");
  std::vector<VkPhysicalDevice> all(count);
  require(FLUXION_FIND(EnumeratePhysicalDevices)(instance_, &count, all.data()), "list devices");
  for (const VkPhysicalDevice each : all) {
    VkPhysicalDeviceProperties properties{};
    FLUXION_FIND(GetPhysicalDeviceProperties)(each, &properties);
    if (properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU) physical_ = each;
  }
  if (!physical_) return false;

  priorities_.assign(options_.queues, 0.5f);
  queue_info_.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
  queue_info_.queueCount = options_.queues;
  queue_info_.pQueuePriorities = priorities_.data();
  info_.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
  info_.queueCreateInfoCount = 1;
  info_.pQueueCreateInfos = &queue_info_;
  info_.enabledExtensionCount = static_cast<std::uint32_t>(options_.extensions.size());
  info_.ppEnabledExtensionNames = options_.extensions.data();
  features_.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  features_11_.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
  features_12_.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
  timeline_.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES;
  const VkBool32 timeline = options_.timeline ? VK_TRUE : VK_FALSE;
  info_.pNext = &features_;
  if (options_.api_version >= VK_API_VERSION_1_2) {
    features_.pNext = &features_11_;
    features_11_.pNext = &features_12_;
    features_12_.timelineSemaphore = timeline;
    if (options_.optional) {
      features_.features.shaderInt16 = VK_TRUE;
      features_11_.storageBuffer16BitAccess = VK_TRUE;
      features_12_.storageBuffer8BitAccess = VK_TRUE;
      features_12_.shaderFloat16 = features_12_.shaderInt8 = VK_TRUE;
    }
  } else if (options_.timeline) {
    features_.pNext = &timeline_;
    timeline_.timelineSemaphore = timeline;
  }
  require(FLUXION_FIND(CreateDevice)(physical_, &info_, nullptr, &device_), "make a device");
  get_device_ = reinterpret_cast<PFN_vkGetDeviceProcAddr>(get_(instance_, "vkGetDeviceProcAddr"));

  VkCommandPoolCreateInfo pool{};
  pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
  require(FLUXION_FIND(CreateCommandPool)(device_, &pool, nullptr, &pool_), "make a command pool");
  return true;
}

Application::~Application() {
  if (device_) {
    works();
    for (const auto& each : buffers_) {
      FLUXION_FIND(DestroyBuffer)(device_, each->buffer, nullptr);
      FLUXION_FIND(FreeMemory)(device_, each->memory, nullptr);
    }
    for (const VkSemaphore each : semaphores_)
      FLUXION_FIND(DestroySemaphore)(device_, each, nullptr);
    if (pool_) FLUXION_FIND(DestroyCommandPool)(device_, pool_, nullptr);
    FLUXION_FIND(DestroyDevice)(device_, nullptr);
    device_ = VK_NULL_HANDLE;
  }
  if (messenger_) FLUXION_FIND(DestroyDebugUtilsMessengerEXT)(instance_, messenger_, nullptr);
  if (instance_) FLUXION_FIND(DestroyInstance)(instance_, nullptr);
  if (library_) ::dlclose(library_);
}

std::string Application::messages() const {
  std::lock_guard lock(messages_->mutex);
  return messages_->all;
}

const Application::Memory& Application::make_buffer(std::size_t bytes, VkBufferUsageFlags usage) {
  auto made = std::make_unique<Memory>();
  made->bytes = bytes;
  made->usage = usage;
  VkBufferCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO;
  info.size = bytes;
  info.usage = usage;
  require(FLUXION_FIND(CreateBuffer)(device_, &info, nullptr, &made->buffer), "make a buffer");
  VkMemoryRequirements needs{};
  FLUXION_FIND(GetBufferMemoryRequirements)(device_, made->buffer, &needs);
  VkPhysicalDeviceMemoryProperties memory{};
  reinterpret_cast<PFN_vkGetPhysicalDeviceMemoryProperties>(
      get_(instance_, "vkGetPhysicalDeviceMemoryProperties"))(physical_, &memory);
  constexpr VkMemoryPropertyFlags visible =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  std::uint32_t type = 0;
  while (!(needs.memoryTypeBits >> type & 1) ||
         (memory.memoryTypes[type].propertyFlags & visible) != visible)
    ++type;
  VkMemoryAllocateInfo allocation{};
  allocation.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO;
  allocation.allocationSize = needs.size;
  allocation.memoryTypeIndex = type;
  require(FLUXION_FIND(AllocateMemory)(device_, &allocation, nullptr, &made->memory), "allocate");
  require(FLUXION_FIND(BindBufferMemory)(device_, made->buffer, made->memory, 0), "bind memory");
  void* host = nullptr;
  require(FLUXION_FIND(MapMemory)(device_, made->memory, 0, VK_WHOLE_SIZE, 0, &host), "map memory");
  made->host = static_cast<std::byte*>(host);
  std::memset(host, 0, bytes);
  buffers_.push_back(std::move(made));
  return *buffers_.back();
}

void Application::destroy_buffer(const Memory& memory) {
  const auto found = std::find_if(buffers_.begin(), buffers_.end(),
                                  [&](const auto& each) { return each.get() == &memory; });
  FLUXION_FIND(DestroyBuffer)(device_, memory.buffer, nullptr);
  FLUXION_FIND(FreeMemory)(device_, memory.memory, nullptr);
  buffers_.erase(found);
}

VkSemaphore Application::make_timeline(std::uint64_t value) {
  VkSemaphoreTypeCreateInfo type{};
  type.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO;
  type.semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE;
  type.initialValue = value;
  VkSemaphoreCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO;
  info.pNext = &type;
  VkSemaphore made = VK_NULL_HANDLE;
  require(FLUXION_FIND(CreateSemaphore)(device_, &info, nullptr, &made), "make a semaphore");
  semaphores_.push_back(made);
  return made;
}

std::uint64_t Application::value(VkSemaphore semaphore) const {
  std::uint64_t value = 0;
  require(FLUXION_FIND(GetSemaphoreCounterValue)(device_, semaphore, &value), "ask a semaphore");
  return value;
}

void Application::signal(VkSemaphore semaphore, std::uint64_t value) const {
  VkSemaphoreSignalInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO;
  info.semaphore = semaphore;
  info.value = value;
  require(FLUXION_FIND(SignalSemaphore)(device_, &info), "signal a semaphore");
}

void Application::wait(VkSemaphore semaphore, std::uint64_t value) const {
  VkSemaphoreWaitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO;
  info.semaphoreCount = 1;
  info.pSemaphores = &semaphore;
  info.pValues = &value;
  constexpr std::uint64_t a_minute = 60'000'000'000;
  require(FLUXION_FIND(WaitSemaphores)(device_, &info, a_minute), "wait for a semaphore");
}

VkCommandBuffer Application::begin() {
  VkCommandBufferAllocateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
  info.commandPool = pool_;
  info.commandBufferCount = 1;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  require(FLUXION_FIND(AllocateCommandBuffers)(device_, &info, &commands), "make commands");
  VkCommandBufferBeginInfo begin{};
  begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
  begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  require(FLUXION_FIND(BeginCommandBuffer)(commands, &begin), "begin commands");
  return commands;
}

void Application::submit(std::uint32_t index, VkCommandBuffer commands, VkSemaphore wait,
                         std::uint64_t wait_value, VkSemaphore signal, std::uint64_t signal_value) {
  // What the host reads from mapped memory.
  VkMemoryBarrier barrier{};
  barrier.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER;
  barrier.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
  barrier.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
  FLUXION_FIND(CmdPipelineBarrier)
  (commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, nullptr,
   0, nullptr);
  require(FLUXION_FIND(EndCommandBuffer)(commands), "end commands");
  VkTimelineSemaphoreSubmitInfo values{};
  values.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO;
  values.waitSemaphoreValueCount = wait ? 1 : 0;
  values.pWaitSemaphoreValues = &wait_value;
  values.signalSemaphoreValueCount = signal ? 1 : 0;
  values.pSignalSemaphoreValues = &signal_value;
  const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
  VkSubmitInfo info{};
  info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
  info.pNext = &values;
  info.waitSemaphoreCount = values.waitSemaphoreValueCount;
  info.pWaitSemaphores = &wait;
  info.pWaitDstStageMask = &stage;
  info.commandBufferCount = 1;
  info.pCommandBuffers = &commands;
  info.signalSemaphoreCount = values.signalSemaphoreValueCount;
  info.pSignalSemaphores = &signal;
  VkQueue queue = VK_NULL_HANDLE;
  FLUXION_FIND(GetDeviceQueue)(device_, family(), index, &queue);
  require(FLUXION_FIND(QueueSubmit)(queue, 1, &info, VK_NULL_HANDLE), "submit");
}

void Application::fill(std::uint32_t index, const Memory& to, std::uint32_t word,
                       VkSemaphore signal, std::uint64_t signal_value) {
  const VkCommandBuffer commands = begin();
  FLUXION_FIND(CmdFillBuffer)(commands, to.buffer, 0, to.bytes, word);
  submit(index, commands, VK_NULL_HANDLE, 0, signal, signal_value);
}

void Application::copy(std::uint32_t index, VkBuffer from, std::uint64_t from_at, const Memory& to,
                       std::size_t bytes, VkSemaphore wait, std::uint64_t wait_value,
                       VkSemaphore signal, std::uint64_t signal_value) {
  const VkCommandBuffer commands = begin();
  const VkBufferCopy region{from_at, 0, bytes};
  FLUXION_FIND(CmdCopyBuffer)(commands, from, to.buffer, 1, &region);
  submit(index, commands, wait, wait_value, signal, signal_value);
}

bool Application::works() const { return FLUXION_FIND(DeviceWaitIdle)(device_) == VK_SUCCESS; }

}  // namespace fluxion::testing
