#include "tests/vulkan/validate_shader.h"

#include <spirv-tools/libspirv.hpp>

#include "tests/catch.h"

namespace fluxion::testing {

std::string errors_of(const vulkan_backend::Shader& shader) {
  spvtools::SpirvTools tools(SPV_ENV_VULKAN_1_1);
  std::string errors;
  tools.SetMessageConsumer(
      [&](spv_message_level_t, const char*, const spv_position_t& position, const char* message) {
        errors += "word " + std::to_string(position.index) + ": " + message + "\n";
      });
  if (!tools.Validate(shader.words) && errors.empty()) errors = "not valid";
  return errors;
}

void require_sound(const vulkan_backend::KernelWork& work) {
  for (const vulkan_backend::Shader& shader : work.shaders) {
    const std::string errors = errors_of(shader);
    INFO(shader.name << ": " << errors);
    REQUIRE(errors.empty());
  }
}

}  // namespace fluxion::testing
