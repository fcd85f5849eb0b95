#include "backends/vulkan/kernel.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

KernelWork lower_tape(const TapeKernel&, const LoweringContext&) {
  throw Error("vulkan: there is no kernel for a map or row reduction yet");
}

}  // namespace fluxion::vulkan_backend
