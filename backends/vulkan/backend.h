// The backend, with what tests ask for besides.
#pragma once

#include <memory>
#include <vector>

#include "backends/vulkan/device.h"
#include "backends/vulkan/kernel.h"
#include "engine/device.h"

namespace fluxion::vulkan_backend {

Device open(const DeviceOptions& options);

// Of a device that open() or vulkan() gave; throws DeviceError for any other one.
const std::shared_ptr<LogicalDevice>& logical_device(const Device& device);

// A program whose kernels were lowered by the caller: `work` is that of each kernel.
std::unique_ptr<Executable> compile(const Device& device, const Program& program,
                                    std::vector<KernelWork> work);

}  // namespace fluxion::vulkan_backend
