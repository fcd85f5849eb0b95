#include "backends/vulkan/kernel.h"
#include "engine/error.h"

namespace fluxion::vulkan_backend {

KernelWork lower_contraction(const ContractKernel&, const LoweringContext&) {
  throw Error("vulkan: there is no kernel for a product of matrices yet");
}

}  // namespace fluxion::vulkan_backend
