// Whether shaders are sound SPIR-V, by SPIRV-Tools.
#pragma once

#include <string>

#include "backends/vulkan/kernel.h"

namespace fluxion::testing {

// What is wrong with the shader for Vulkan 1.1; "" if nothing is.
std::string errors_of(const vulkan_backend::Shader& shader);
// Fails the test with the shader's name and what is wrong, if a shader is not sound.
void require_sound(const vulkan_backend::KernelWork& work);

}  // namespace fluxion::testing
