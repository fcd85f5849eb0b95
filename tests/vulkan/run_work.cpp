#include "tests/vulkan/run_work.h"

#include <span>
#include <utility>

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
  options.adjust = [adjust = std::move(options.adjust)](vulkan_backend::DeviceFacts& facts) {
    const vulkan_backend::ShaderTarget usual;
    facts.shaders.short_code = usual.short_code, facts.shaders.lanes = usual.lanes;
    if (adjust) adjust(facts);
  };
  return vulkan_backend::open(options);
}

Call::Call(const Device& device, const vulkan_backend::KernelWork& work,
           const std::vector<Words>& buffers, const std::vector<double>& scalars, bool commits)
    : device_(device), scalars_(scalars) {
  Program program;
  for (const Words& words : buffers) {
    const TensorType type{{static_cast<std::int64_t>(words.size())}, DType::u32};
    program.buffers.push_back(
        {BufferKind::output, type, static_cast<std::int64_t>(program.outputs.size()), 0});
    program.outputs.push_back(type);
    program.donations.push_back(-1);
    sizes_.push_back(words.size());
    memory_.push_back(device_.backend().allocate(type));
    outputs_.push_back(memory_.back().get());
    device_.backend().upload(*outputs_.back(), DType::u32, std::as_bytes(std::span(words)));
  }
  program.scalars = static_cast<std::int32_t>(scalars.size());
  program.kernels.resize(1);  // what it is does not matter: it is lowered already
  program.commit_point = commits ? 0 : 1;
  executable_ = vulkan_backend::compile(device_, program, {work});
}

Event Call::submit(const RunOptions& options) const {
  return executable_->submit({{}, outputs_, scalars_}, options);
}

Words Call::read(std::size_t buffer) const {
  Words words(sizes_[buffer]);
  device_.backend().download(*memory_[buffer], DType::u32,
                             std::as_writable_bytes(std::span(words)));
  return words;
}

std::vector<Words> run_work(const Device& device, const vulkan_backend::KernelWork& work,
                            const std::vector<Words>& buffers, const std::vector<double>& scalars) {
  const Call call(device, work, buffers, scalars);
  call.run();
  std::vector<Words> result;
  for (std::size_t i = 0; i < buffers.size(); ++i) result.push_back(call.read(i));
  return result;
}

}  // namespace fluxion::testing
