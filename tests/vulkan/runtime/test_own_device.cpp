// Vulkan: a device, a queue, buffers and semaphores that the application made.
#include <cstring>
#include <mutex>
#include <thread>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/hazards.h"
#include "backends/vulkan/own_device.h"
#include "backends/vulkan/program.h"
#include "backends/vulkan/sharing.h"
#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/vulkan/application.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/runtime/small_kernels.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

constexpr VkBufferUsageFlags for_tensors = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                           VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                           VK_BUFFER_USAGE_TRANSFER_DST_BIT;

OwnVulkan own_of(const Application& application) {
  OwnVulkan own;
  own.get_instance_proc_addr = reinterpret_cast<void (*)()>(application.get());
  own.instance = application.instance();
  own.api_version = application.api_version();
  own.physical_device = application.physical();
  own.device = application.device();
  own.device_info = &application.device_info();
  own.queue_family = application.family();
  own.queue_is_unshared = true;
  return own;
}

Device device_on(const OwnVulkan& own) { return vulkan({.cache = "", .own = own}); }

VulkanRange range_of(const Application::Memory& memory, std::uint64_t offset = 0) {
  return {memory.number(), offset, memory.bytes - offset, memory.usage};
}

std::vector<float> floats_in(const Application::Memory& memory) {
  std::vector<float> values(memory.bytes / sizeof(float));
  std::memcpy(values.data(), memory.host, memory.bytes);
  return values;
}

// An application, validated where the layer is installed; nothing without a software device.
std::unique_ptr<Application> validated(ApplicationOptions options = {}) {
  options.validate = true;
  if (auto application = Application::start(options)) return application;
  options.validate = false;
  auto application = Application::start(options);
  if (application) WARN("without the validation layer");
  return application;
}

}  // namespace

TEST_CASE("the engine computes on the application's device, and destroys nothing of it",
          "[vulkan][own]") {
  for (const std::uint32_t version : {VK_API_VERSION_1_1, VK_API_VERSION_1_2, VK_API_VERSION_1_3})
    for (const bool optional : {false, true}) {
      CAPTURE(version, optional);
      ApplicationOptions options{.api_version = version, .optional = optional};
      if (version < VK_API_VERSION_1_2)
        options.extensions = {VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME};
      const auto application = validated(options);
      if (!application) return;
      for (int life = 0; life < 2; ++life) {
        const Device device = device_on(own_of(*application));
        const Tensor x = Tensor::from(std::vector<float>{1, 2, 3}, {3}, device);
        CHECK((x * x + 1.0).to_host<float>() == std::vector<float>{2, 5, 10});
        // What is not enabled is not used.
        const DeviceFacts& facts = logical_device(device)->facts();
        CHECK(facts.shaders.storage_16 == (optional && version >= VK_API_VERSION_1_2));
        CHECK(facts.shaders.integer_8 == (optional && version >= VK_API_VERSION_1_2));
        CHECK_FALSE(facts.shaders.subgroup_size_control);
        CHECK(facts.api_version <= version);
      }
      CHECK(application->works());
      CHECK(application->messages() == "");
    }
}

TEST_CASE("the application's validation is awake", "[vulkan][own]") {
  const auto application = Application::start({.validate = true});
  if (!application) return;
  application->make_buffer(64, 0);
  CHECK_THAT(application->messages(), has_text("VUID-VkBufferCreateInfo-usage"));
}

TEST_CASE("tensors may outlive the device's handle, on the application's device, too",
          "[vulkan][own]") {
  const auto application = validated();
  if (!application) return;
  {
    Tensor x;
    {
      const Device device = device_on(own_of(*application));
      x = Tensor::from(std::vector<float>{1, 2}, {2}, device) * 2.0;
      eval(x);
    }
    CHECK(x.to_host<float>() == std::vector<float>{2, 4});
  }
  CHECK(application->works());
  CHECK(application->messages() == "");
}

TEST_CASE("what an application should enable is listed before its device is made",
          "[vulkan][own]") {
  const auto application = Application::start();
  if (!application) return;
  OwnVulkan own = own_of(*application);
  own.device = nullptr, own.device_info = nullptr;
  const auto listed = [](const std::vector<VulkanNeed>& needs, const std::string& name) {
    for (const VulkanNeed& each : needs)
      if (each.name == name) return std::pair(true, each.required);
    return std::pair(false, false);
  };
  std::vector<VulkanNeed> needs = vulkan_needs(own);
  CHECK(listed(needs, "timelineSemaphore") == std::pair(true, true));
  CHECK(listed(needs, "shaderInt8") == std::pair(true, false));
  CHECK_FALSE(listed(needs, VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME).first);  // it is of 1.2
  for (const VulkanNeed& each : needs)
    CHECK((each.structure.empty() || each.structure.starts_with("VkPhysicalDevice")));
  // The same for an instance that was made for 1.1.
  own.api_version = VK_API_VERSION_1_1;
  needs = vulkan_needs(own);
  CHECK(listed(needs, VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME) == std::pair(true, true));
  CHECK(listed(needs, VK_KHR_8BIT_STORAGE_EXTENSION_NAME) == std::pair(true, false));
}

TEST_CASE("enabled features are read from every structure that has them", "[vulkan][own]") {
  const float priority = 1;
  auto queue = structure<VkDeviceQueueCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO);
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  auto info = structure<VkDeviceCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO);
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  OwnVulkan own;
  own.device = &own;  // never used
  own.device_info = &info;
  own.queue_is_unshared = true;
  const auto on = [&](const void* chain, const VkPhysicalDeviceFeatures* basic = nullptr) {
    info.pNext = chain;
    info.pEnabledFeatures = basic;
    const Enabled enabled(own);
    DeviceFeatures features;
    std::string names;
    std::size_t number = 0;
    for (const NamedFeature& each : features.named())
      if (enabled.has_feature(number++)) names += std::string(each.name) + " ";
    return names;
  };
  CHECK(on(nullptr) == "");
  VkPhysicalDeviceFeatures basic{};
  basic.shaderInt16 = VK_TRUE;
  CHECK(on(nullptr, &basic) == "shaderInt16 ");
  const std::string all =
      "shaderInt16 storageBuffer16BitAccess storageBuffer8BitAccess shaderFloat16 shaderInt8 "
      "timelineSemaphore subgroupSizeControl computeFullSubgroups ";
  DeviceFeatures single;
  for (const NamedFeature& each : single.named()) *each.value = VK_TRUE;
  single.link([](bool, std::uint32_t, const char*) { return true; });
  CHECK(on(&single.basic) == all);
  auto v11 = structure<VkPhysicalDeviceVulkan11Features>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES);
  auto v12 = structure<VkPhysicalDeviceVulkan12Features>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
  auto v13 = structure<VkPhysicalDeviceVulkan13Features>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES);
  v11.pNext = &v12, v12.pNext = &v13;
  CHECK(on(&v11) == "");
  v11.storageBuffer16BitAccess = v12.storageBuffer8BitAccess = VK_TRUE;
  v12.shaderFloat16 = v12.shaderInt8 = v12.timelineSemaphore = VK_TRUE;
  v13.subgroupSizeControl = v13.computeFullSubgroups = VK_TRUE;
  CHECK(on(&v11) == all.substr(std::string("shaderInt16 ").size()));
}

TEST_CASE("what is missing of an application's device is refused by name", "[vulkan][own]") {
  const auto application = Application::start();
  if (!application) return;
  const OwnVulkan whole = own_of(*application);
  const auto refusal = [&](const auto& change) {
    OwnVulkan own = whole;
    change(own);
    return message_of<DeviceError>([&] { device_on(own); });
  };
  CHECK_THAT(refusal([](OwnVulkan& own) { own.get_instance_proc_addr = nullptr; }),
             has_text("get_instance_proc_addr is missing"));
  CHECK_THAT(refusal([](OwnVulkan& own) { own.instance = nullptr; }),
             has_text("instance is missing"));
  CHECK_THAT(refusal([](OwnVulkan& own) { own.physical_device = nullptr; }),
             has_text("physical_device is missing"));
  CHECK_THAT(refusal([](OwnVulkan& own) { own.device = nullptr; }), has_text("device is missing"));
  CHECK_THAT(refusal([](OwnVulkan& own) { own.device_info = nullptr; }),
             has_text("device_info is missing"));
  CHECK_THAT(refusal([](OwnVulkan& own) { own.api_version = 0; }), has_text("VK_API_VERSION_1_1"));
  CHECK_THAT(refusal([](OwnVulkan& own) { own.queue_index = 1; }),
             has_text("queue 1 of family 0 was not made"));
  CHECK_THAT(refusal([](OwnVulkan& own) { own.queue_is_unshared = false; }),
             has_text("queue_is_unshared"));
  CHECK_THAT(refusal([](OwnVulkan& own) { own.lock = [] {}; }), has_text("one is missing"));
  CHECK_THAT(refusal([](OwnVulkan& own) { own.lock = own.unlock = [] {}; }),
             has_text("one of the two"));
  CHECK_THAT(message_of<DeviceError>([&] { vulkan({.device = 0, .own = whole}); }),
             has_text("one of the two"));
  VkApplicationInfo other{};
  CHECK_THAT(refusal([&](OwnVulkan& own) { own.device_info = &other; }),
             has_text("no VkDeviceCreateInfo"));
  // Without the feature; with it, but without the extension that 1.1 needs for it.
  const auto without = Application::start({.timeline = false});
  CHECK_THAT(message_of<DeviceError>([&] { device_on(own_of(*without)); }),
             has_text("timelineSemaphore"));
  OwnVulkan older = whole;
  older.api_version = VK_API_VERSION_1_1;
  CHECK_THAT(message_of<DeviceError>([&] { device_on(older); }),
             has_text(VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME));
  CHECK(application->works());
}

TEST_CASE("the application's lock is held around each use of the queue, and not twice",
          "[vulkan][own]") {
  const auto application = validated();
  if (!application) return;
  std::mutex mutex;
  int uses = 0;
  OwnVulkan own = own_of(*application);
  own.queue_is_unshared = false;
  own.lock = [&] {
    mutex.lock();
    ++uses;
  };
  own.unlock = [&] { mutex.unlock(); };
  {
    const Device device = device_on(own);
    const VkSemaphore done = application->make_timeline();
    const Application::Memory& memory = application->make_buffer(4096, for_tensors);
    // The application submits to the same queue meanwhile.
    std::thread other([&] {
      for (std::uint64_t i = 1; i <= 20; ++i) {
        std::lock_guard lock(mutex);
        application->fill(0, memory, 7, done, i);
      }
    });
    Tensor x = Tensor::from(std::vector<float>(100, 1), {100}, device);
    for (int i = 0; i < 5; ++i) {
      x = x * 2.0;
      eval(x);
    }
    other.join();
    CHECK(x.to_host<float>() == std::vector<float>(100, 32));
    application->wait(done, 20);
  }
  CHECK(uses >= 5);
  CHECK(application->messages() == "");
}

TEST_CASE("a tensor in the application's buffer is read and written there, in order of semaphores",
          "[vulkan][own]") {
  const auto application = validated({.queues = 1});
  if (!application) return;
  {
    const Device device = device_on(own_of(*application));
    const std::uint64_t alignment = vulkan_alignment(device);
    const Application::Memory& memory = application->make_buffer(400 + alignment, for_tensors);
    const VkSemaphore filled = application->make_timeline(), used = application->make_timeline();
    const Tensor x = vulkan_tensor(range_of(memory, alignment), {{100}, DType::f32}, device);
    for (std::uint64_t round = 1; round <= 3; ++round) {
      // The application writes 1.5, the engine reads it and says that it has.
      vulkan_wait(device, {Application::number(filled), round});
      const Tensor y = x * 2.0;
      eval(y);
      vulkan_signal(device, {Application::number(used), round});
      CHECK(application->value(used) == round - 1);
      for (std::size_t i = 0; i < 100; ++i) {
        const float value = 0.5f + static_cast<float>(round);
        std::memcpy(memory.host + alignment + 4 * i, &value, 4);
      }
      application->signal(filled, round);
      application->wait(used, round);
      CHECK(y.to_host<float>() == std::vector<float>(100, 1 + 2 * static_cast<float>(round)));
    }
    // The engine writes: a copy of a value.
    const Tensor z = Tensor::from(std::vector<float>(100, 9), {100}, device);
    vulkan_copy(z, 400, range_of(memory, alignment), {}, {Application::number(used), 4});
    application->wait(used, 4);
    CHECK(floats_in(memory).back() == 9);
    CHECK(floats_in(memory).front() == 0);
    CHECK(x.to_host<float>() == std::vector<float>(100, 9));
  }
  CHECK(application->messages() == "");
}

TEST_CASE("dispatches on two tensors in one buffer of the application's wait for each other",
          "[vulkan][own]") {
  const auto application = validated();
  if (!application) return;
  {
    const Device device = device_on(own_of(*application));
    const Application::Memory& memory = application->make_buffer(4000, for_tensors);
    const TensorType type{{1000}, DType::f32};
    const Tensor a = vulkan_tensor(range_of(memory), type, device),
                 b = vulkan_tensor(range_of(memory), type, device);
    const auto place = [](const Tensor& each) {
      return static_cast<const VulkanBuffer&>(*each.node()->value(each.output())).place();
    };
    CHECK(place(a).block == place(b).block);
    Hazards hazards;
    hazards.note(place(a), false, true);
    CHECK(hazards.conflicts(place(b), false));
  }
  CHECK(application->messages() == "");
}

TEST_CASE("a buffer whose handle is used again is another buffer", "[vulkan][own]") {
  const auto application = validated();
  if (!application) return;
  {
    const Device device = device_on(own_of(*application));
    const auto doubled = compile([](const Tensor& x) { return x * 2.0; });
    for (int i = 1; i <= 12; ++i) {
      const Application::Memory& memory = application->make_buffer(256, for_tensors);
      const float value = static_cast<float>(i);
      for (std::size_t k = 0; k < 64; ++k) std::memcpy(memory.host + 4 * k, &value, 4);
      {
        const Tensor x = vulkan_tensor(range_of(memory), {{64}, DType::f32}, device);
        CHECK(doubled(x).to_host<float>() == std::vector<float>(64, 2 * value));
      }
      application->destroy_buffer(memory);
    }
  }
  CHECK(application->messages() == "");
}

TEST_CASE("the application reads a tensor where it lies", "[vulkan][own]") {
  const auto application = validated({.queues = 1});
  if (!application) return;
  {
    const Device device = device_on(own_of(*application));
    const Application::Memory& memory = application->make_buffer(4096, for_tensors);
    const VkSemaphore ready = application->make_timeline(), copied = application->make_timeline();
    VulkanLoan loan;
    {
      const Tensor y = Tensor::from(std::vector<float>(1000, 3), {1000}, device) * 2.0;
      loan = vulkan_range(y);
      vulkan_signal(device, {Application::number(ready), 1});
    }
    CHECK(loan.stored == DType::f32);
    CHECK(loan.range.bytes == 4000);
    // The tensor is gone, its memory is not.
    const Tensor other = Tensor::from(std::vector<float>(1000, 8), {1000}, device) * 2.0;
    eval(other);
    application->copy(0, reinterpret_cast<VkBuffer>(loan.range.buffer), loan.range.offset, memory,
                      4000, ready, 1, copied, 1);
    application->wait(copied, 1);
    CHECK(floats_in(memory)[0] == 6);
    CHECK(floats_in(memory)[999] == 6);
    CHECK(floats_in(memory)[1000] == 0);
  }
  CHECK(application->messages() == "");
}

TEST_CASE("a buffer of the application's that does not fit is refused", "[vulkan][own]") {
  const auto application = Application::start();
  if (!application) return;
  const Device device = device_on(own_of(*application));
  const Application::Memory& memory = application->make_buffer(1024, for_tensors);
  const TensorType type{{100}, DType::f32};
  const auto refusal = [&](VulkanRange range) {
    return message_of<DeviceError>([&] { vulkan_tensor(range, type, device); });
  };
  CHECK_NOTHROW(vulkan_tensor(range_of(memory), type, device));
  CHECK_NOTHROW(vulkan_tensor({memory.number(), 256, 400, memory.usage}, type, device));
  CHECK_THAT(refusal({memory.number(), 256, 399, memory.usage}), has_text("400 are needed"));
  CHECK_THAT(refusal({memory.number(), 4, 1020, memory.usage}), has_text("no multiple of"));
  CHECK_THAT(refusal({0, 0, 1024, memory.usage}), has_text("is missing"));
  CHECK_THAT(refusal({memory.number(), ~std::uint64_t{0}, 1024, memory.usage}),
             has_text("can't have"));
  for (const auto& [flag, name] : {std::pair(VK_BUFFER_USAGE_STORAGE_BUFFER_BIT, "STORAGE_BUFFER"),
                                   std::pair(VK_BUFFER_USAGE_TRANSFER_SRC_BIT, "TRANSFER_SRC"),
                                   std::pair(VK_BUFFER_USAGE_TRANSFER_DST_BIT, "TRANSFER_DST")})
    CHECK_THAT(refusal({memory.number(), 0, 1024, memory.usage & ~VkBufferUsageFlags(flag)}),
               has_text(name));
  const Tensor x = zeros({100}, DType::f32, device);
  CHECK_THAT(message_of<DeviceError>([&] { vulkan_copy(x, 401, range_of(memory)); }),
             has_text("which has 400"));
  CHECK_THAT(message_of<DeviceError>([&] { vulkan_copy(x, 400, range_of(memory, 2)); }),
             has_text("no multiple of 4"));
  CHECK_THAT(message_of<DeviceError>([&] {
               vulkan_copy(x, 400, {memory.number(), 1000, 24, memory.usage});
             }),
             has_text("400 are needed"));
  // A device that the engine opened shares nothing.
  const std::optional<Device> opened = software_vulkan();
  REQUIRE(opened);
  CHECK_THAT(message_of<DeviceError>([&] { vulkan_tensor(range_of(memory), type, *opened); }),
             has_text("was opened by the engine"));
  CHECK_THROWS_AS(vulkan_wait(*opened, {1, 1}), DeviceError);
  CHECK_THROWS_AS(vulkan_signal(*opened, {1, 1}), DeviceError);
  CHECK_THROWS_AS(vulkan_range(zeros({1}, DType::f32, *opened)), DeviceError);
}
