#include "tests/vulkan/gemm/run_kernel.h"

#include <algorithm>
#include <span>

#include "engine/error.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/valid_spirv.h"

namespace fluxion::testing {

using vulkan_backend::KernelWork;
using vulkan_backend::ShaderTarget;

namespace {

const std::optional<Device>& kernel_device() {
  static const std::optional<Device> device = software_vulkan();
  return device;
}

}  // namespace

std::string invalid(const KernelWork& work, const ShaderTarget& target) {
  std::string text;
  for (const vulkan_backend::Shader& shader : work.shaders) {
    const std::string wrong = spirv_faults(shader.words, target);
    if (!wrong.empty()) text += shader.name + ": " + wrong + "\n";
  }
  return text;
}

bool can_run_kernels() { return kernel_device().has_value(); }

void run_kernel(const KernelWork& work, HostMemory& memory, const Storage& storage,
                const std::vector<double>& scalars) {
  const std::string errors =
      invalid(work, vulkan_backend::logical_device(*kernel_device())->facts().shaders);
  if (!errors.empty()) throw Error("invalid SPIR-V: " + errors);
  std::vector<std::vector<std::byte>> bytes = memory.to_device(storage);
  std::vector<Words> words;
  for (const std::vector<std::byte>& each : bytes) {
    words.emplace_back((each.size() + 3) / 4);
    std::ranges::copy(each, std::as_writable_bytes(std::span(words.back())).begin());
  }
  words = run_work(*kernel_device(), work, words, scalars);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    std::ranges::copy(std::as_bytes(std::span(words[i])).first(bytes[i].size()), bytes[i].begin());
  memory.from_device(bytes, storage);
}

ShaderTarget usual_target() {
  ShaderTarget target;
  target.shared_bytes = 32768;
  target.max_invocations = 1024;
  target.max_local_size = {1024, 1024, 64};
  target.storage_16 = true;
  return target;
}
ShaderTarget least_target() { return {}; }

}  // namespace fluxion::testing
