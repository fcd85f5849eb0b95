#include "backends/vulkan/kernel.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

KernelWork lower_op(const OpKernel&, const LoweringContext&) {
  throw Error("vulkan: there is no kernel for an op on whole tensors yet");
}

}  // namespace fluxion::vulkan_backend
