#include "backends/vulkan/kernel.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

KernelWork lower_attention(const OpKernel&, const LoweringContext&) {
  throw Error("vulkan: there is no kernel for attention yet");
}

}  // namespace fluxion::vulkan_backend
