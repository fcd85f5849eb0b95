// Whether a shader is valid, as spirv-val sees it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "backends/vulkan/kernel.h"

namespace fluxion::testing {

// What is wrong with a module for Vulkan 1.1; empty if nothing is.
std::string spirv_faults(std::span<const std::uint32_t> words);
// Fails the test, with the shader's name and what is wrong, if one is not valid.
void require_valid(const vulkan_backend::KernelWork& work);

}  // namespace fluxion::testing
