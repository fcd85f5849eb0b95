#pragma once

#include "backends/vulkan/kernel.h"
#include "engine/program/limits.h"

namespace fluxion::vulkan_backend {

// What the kernels of maps and row reductions can do: any tape of 32-bit indices. Rows that don't
// fit into registers are read and computed anew for each reduction, so no length is too long for
// them; but one workgroup does a resident row, so very long ones are better split. The limits of
// memory and bindings are the device's to lower.
KernelLimits tape_limits(const ShaderTarget& target);

}  // namespace fluxion::vulkan_backend
