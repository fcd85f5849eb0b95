#include "tests/vulkan/valid_spirv.h"

#include <spirv-tools/libspirv.hpp>

#include "tests/catch.h"

namespace fluxion::testing {

std::string spirv_faults(std::span<const std::uint32_t> words) {
  spvtools::SpirvTools tools(SPV_ENV_VULKAN_1_1);
  std::string faults;
  tools.SetMessageConsumer(
      [&](spv_message_level_t, const char*, const spv_position_t& position, const char* message) {
        faults += "word " + std::to_string(position.index) + ": " + message + "\n";
      });
  if (tools.Validate(words.data(), words.size())) return {};
  return faults.empty() ? "not a SPIR-V module" : faults;
}

void require_valid(const vulkan_backend::KernelWork& work) {
  for (const vulkan_backend::Shader& shader : work.shaders) {
    const std::string faults = spirv_faults(shader.words);
    INFO(shader.name << ": " << faults);
    REQUIRE(faults.empty());
  }
}

}  // namespace fluxion::testing
