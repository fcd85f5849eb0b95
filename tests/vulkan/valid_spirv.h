// Whether a shader is valid, as spirv-val sees it, and no more than its device is said to run.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "backends/vulkan/kernel.h"

namespace fluxion::testing {

// What is wrong with a module for Vulkan 1.1 on the target: also capabilities that it lacks. Empty
// if nothing is.
std::string spirv_faults(std::span<const std::uint32_t> words,
                         const vulkan_backend::ShaderTarget& target);
// Fails the test, with the shader's name and what is wrong, if one is not valid.
void require_valid(const vulkan_backend::KernelWork& work,
                   const vulkan_backend::ShaderTarget& target);

}  // namespace fluxion::testing
