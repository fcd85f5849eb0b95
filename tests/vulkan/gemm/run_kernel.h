// Runs lowered kernels on the software device over the buffers of a HostMemory.
#pragma once

#include <string>
#include <vector>

#include "backends/vulkan/kernel.h"
#include "tests/vulkan/gemm/host_memory.h"

namespace fluxion::testing {

// "" if every shader is valid SPIR-V for Vulkan 1.1 on the target, else what is wrong.
std::string invalid(const vulkan_backend::KernelWork& work,
                    const vulkan_backend::ShaderTarget& target);

// Whether this machine has the software device.
bool can_run_kernels();
// Runs the work over the buffers; `memory` then holds what they hold. Throws Error if a shader is
// not valid.
void run_kernel(const vulkan_backend::KernelWork& work, HostMemory& memory, const Storage& storage,
                const std::vector<double>& scalars = {});

// The software device's usual shared memory and invocations; and the least that the profile asks
// for.
vulkan_backend::ShaderTarget usual_target();
vulkan_backend::ShaderTarget least_target();

}  // namespace fluxion::testing
