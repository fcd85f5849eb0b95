#include "tests/vulkan/valid_spirv.h"

#include <spirv-tools/libspirv.hpp>

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

}  // namespace fluxion::testing
