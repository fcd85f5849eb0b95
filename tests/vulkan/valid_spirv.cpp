#include "tests/vulkan/valid_spirv.h"

#include <spirv-tools/libspirv.hpp>
#include <spirv/unified1/spirv.hpp11>

#include "tests/catch.h"

namespace fluxion::testing {

namespace {

bool has(const vulkan_backend::ShaderTarget& target, spv::Capability capability) {
  switch (capability) {
    case spv::Capability::Shader:
      return true;
    case spv::Capability::StorageBuffer16BitAccess:
      return target.storage_16;
    case spv::Capability::StorageBuffer8BitAccess:
      return target.storage_8;
    case spv::Capability::Float16:
      return target.float_16;
    case spv::Capability::Int16:
      return target.integer_16;
    case spv::Capability::Int8:
      return target.integer_8;
    case spv::Capability::GroupNonUniform:
    case spv::Capability::GroupNonUniformArithmetic:
      return target.subgroup_arithmetic;
    case spv::Capability::SignedZeroInfNanPreserve:
      return target.preserves_special_values;
    case spv::Capability::DenormPreserve:
      return target.preserves_f16_subnormals;
    default:
      return false;
  }
}

// Capabilities come first in a module.
std::string lacking(std::span<const std::uint32_t> words,
                    const vulkan_backend::ShaderTarget& target) {
  constexpr std::size_t header = 5;
  constexpr std::uint32_t declares = 2 << 16 | static_cast<std::uint32_t>(spv::Op::OpCapability);
  std::string faults;
  for (std::size_t at = header; at + 1 < words.size() && words[at] == declares; at += 2)
    if (!has(target, static_cast<spv::Capability>(words[at + 1])))
      faults += "the target lacks capability " + std::to_string(words[at + 1]) + "\n";
  return faults;
}

}  // namespace

std::string spirv_faults(std::span<const std::uint32_t> words,
                         const vulkan_backend::ShaderTarget& target) {
  spvtools::SpirvTools tools(SPV_ENV_VULKAN_1_1);
  std::string faults;
  tools.SetMessageConsumer(
      [&](spv_message_level_t, const char*, const spv_position_t& position, const char* message) {
        faults += "word " + std::to_string(position.index) + ": " + message + "\n";
      });
  if (tools.Validate(words.data(), words.size())) return lacking(words, target);
  return faults.empty() ? "not a SPIR-V module" : faults;
}

void require_valid(const vulkan_backend::KernelWork& work,
                   const vulkan_backend::ShaderTarget& target) {
  for (const vulkan_backend::Shader& shader : work.shaders) {
    const std::string faults = spirv_faults(shader.words, target);
    INFO(shader.name << ": " << faults);
    REQUIRE(faults.empty());
  }
}

}  // namespace fluxion::testing
