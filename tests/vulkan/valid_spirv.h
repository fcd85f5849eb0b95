// Whether a shader is valid, as spirv-val sees it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace fluxion::testing {

// What is wrong with a module for Vulkan 1.1; empty if nothing is.
std::string spirv_faults(std::span<const std::uint32_t> words);

}  // namespace fluxion::testing
