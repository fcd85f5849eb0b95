#include "tests/vulkan/run_work.h"

#include <span>

#include "engine/error.h"

namespace fluxion::testing {

std::optional<int> software_device() {
  try {
    const std::vector<VulkanDeviceInfo> all = vulkan_devices();
    for (std::size_t i = 0; i < all.size(); ++i)
      if (all[i].kind == "software" && all[i].refused.empty()) return static_cast<int>(i);
  } catch (const DeviceError&) {  // no loader, or no driver
  }
  return std::nullopt;
}

std::optional<Device> software_vulkan(vulkan_backend::DeviceOptions options) {
  options.choice.device = software_device();
  if (!options.choice.device) return std::nullopt;
  if (!options.choice.cache) options.choice.cache.emplace();
  return vulkan_backend::open(options);
}

std::vector<Words> run_work(const Device& device, const vulkan_backend::KernelWork& work,
                            const std::vector<Words>& buffers, const std::vector<double>& scalars) {
  Backend& backend = device.backend();
  Program program;
  std::vector<std::shared_ptr<Buffer>> memory;
  std::vector<Buffer*> outputs;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const TensorType type{{static_cast<std::int64_t>(buffers[i].size())}, DType::u32};
    program.buffers.push_back({BufferKind::output, type, static_cast<std::int64_t>(i), 0});
    program.outputs.push_back(type);
    program.donations.push_back(-1);
    memory.push_back(backend.allocate(type));
    outputs.push_back(memory.back().get());
    backend.upload(*outputs.back(), DType::u32, std::as_bytes(std::span(buffers[i])));
  }
  program.scalars = static_cast<std::int32_t>(scalars.size());
  vulkan_backend::compile(device, program, {work})->run({{}, outputs, scalars}, {});
  std::vector<Words> result = buffers;
  for (std::size_t i = 0; i < buffers.size(); ++i)
    backend.download(*outputs[i], DType::u32, std::as_writable_bytes(std::span(result[i])));
  return result;
}

}  // namespace fluxion::testing
