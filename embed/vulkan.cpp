// The C API's functions for a Vulkan device of the application's own.
#include <cstdint>
#include <memory>
#include <string>

#include "embed/handles.h"
#include "engine/error.h"
#if FLUXION_WITH_VULKAN
#include "backends/vulkan/sharing.h"
#include "backends/vulkan/vulkan.h"
#endif

using namespace fluxion;

#if FLUXION_WITH_VULKAN

namespace {

// Without the members that only a device needs.
OwnVulkan physical_of(const fluxion_vulkan& given, const char* function) {
  required(given.get_instance_proc_addr, function, "get_instance_proc_addr");
  OwnVulkan own;
  own.get_instance_proc_addr = given.get_instance_proc_addr;
  own.instance = &required(static_cast<char*>(given.instance), function, "instance");
  own.physical_device =
      &required(static_cast<char*>(given.physical_device), function, "physical_device");
  own.api_version = given.api_version;
  return own;
}

OwnVulkan own_of(const fluxion_vulkan& given, const char* function) {
  OwnVulkan own = physical_of(given, function);
  own.device = &required(static_cast<char*>(given.device), function, "device");
  own.device_info = &required(static_cast<const char*>(given.device_info), function, "device_info");
  own.queue_family = given.queue_family;
  own.queue_index = given.queue_index;
  own.queue_is_unshared = given.queue_is_unshared != 0;
  if (given.lock) own.lock = [call = given.lock, data = given.lock_data] { call(data); };
  if (given.unlock) own.unlock = [call = given.unlock, data = given.lock_data] { call(data); };
  return own;
}

void generate_to(const Generator& generator, const SampleRequest& request,
                 const fluxion_vulkan_target& target, const Device& device) {
  const auto sample =
      static_cast<std::uint64_t>(generator.sampler().sample_shape.elements()) * sizeof(float);
  const auto count = static_cast<std::uint64_t>(request.count);
  if (target.size / sample < count)
    throw InvalidArgument("generate_to_vulkan: " + std::to_string(count) + " samples of " +
                          std::to_string(sample) + " bytes each don't fit into " +
                          std::to_string(target.size));
  try {
    check_vulkan_target(device, count * sample,
                        {target.buffer, target.offset, target.size, target.usage});
  } catch (const DeviceError& caught) {
    throw InvalidArgument(std::string("generate_to_vulkan: ") + caught.what());
  }
  const VulkanSemaphore wait{target.wait_semaphore, target.wait_value},
      signal{target.signal_semaphore, target.signal_value};
  Event written;
  const auto copy = [&](std::int64_t begin, std::int64_t used, const Tensor& samples) {
    const auto bytes = static_cast<std::uint64_t>(used) * sample;
    written =
        vulkan_copy(samples, bytes,
                    {target.buffer, target.offset + static_cast<std::uint64_t>(begin) * sample,
                     bytes, target.usage},
                    begin == 0 ? wait : VulkanSemaphore{},
                    begin + used == request.count ? signal : VulkanSemaphore{});
  };
  try {
    generator.generate(request, copy);
  } catch (...) {
    // Nothing will be signalled: only now may the application free its buffer.
    try {
      written.wait();
    } catch (const Error&) {  // the first error is the one to tell
    }
    throw;
  }
  if (count == 0) {
    vulkan_wait(device, wait);
    vulkan_signal(device, signal);
  }
  if (signal.semaphore == 0) written.wait();
}

}  // namespace

#else

namespace {
constexpr const char* without_vulkan =
    "vulkan: this build of fluxion has no Vulkan backend (it was built with FLUXION_VULKAN=OFF)";
}

#endif

fluxion_status fluxion_vulkan_needs(const fluxion_vulkan* vulkan,
                                    void (*each)(void* data, const fluxion_vulkan_need* need),
                                    void* data, fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "vulkan_needs";
    const fluxion_vulkan given = taken(required(vulkan, function, "vulkan"), function);
    if (!each) throw InvalidArgument("vulkan_needs: the function is NULL");
#if FLUXION_WITH_VULKAN
    for (const VulkanNeed& need : vulkan_needs(physical_of(given, function))) {
      const fluxion_vulkan_need told{sizeof(fluxion_vulkan_need), need.name.c_str(),
                                     need.structure.c_str(), need.required ? 1 : 0};
      each(data, &told);
    }
#else
    (void)given, (void)data;
    throw DeviceError(without_vulkan);
#endif
  });
}

fluxion_status fluxion_device_from_vulkan(const fluxion_vulkan* vulkan,
                                          const fluxion_device_options* options,
                                          fluxion_device** device, fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "device_from_vulkan";
    const fluxion_vulkan given = taken(required(vulkan, function, "vulkan"), function);
    fluxion_device*& to = required(device, function, "device");
    const OpenOptions open = open_options_of(options, function);
#if FLUXION_WITH_VULKAN
    auto made = std::make_unique<fluxion_device>();
    made->open = std::make_shared<OpenDevice>(fluxion::vulkan({.cache = open.kernel_cache,
                                                               .memory_budget = open.memory_budget,
                                                               .own = own_of(given, function)}),
                                              open);
    to = made.release();
#else
    (void)given, (void)to;
    throw DeviceError(without_vulkan);
#endif
  });
}

fluxion_status fluxion_generate_to_vulkan(const fluxion_generator* generator,
                                          const fluxion_request* request,
                                          const fluxion_vulkan_target* target,
                                          fluxion_error* error) noexcept {
  return guarded(error, [&] {
    constexpr const char* function = "generate_to_vulkan";
    const fluxion_generator& from = required(generator, function, "generator");
    const fluxion_request given = taken(required(request, function, "request"), function);
    const fluxion_vulkan_target to = taken(required(target, function, "target"), function);
#if FLUXION_WITH_VULKAN
    generate_to(from.generator, request_of(from, given), to, from.on->device);
#else
    (void)from, (void)given, (void)to;
    throw DeviceError(without_vulkan);
#endif
  });
}
