#include "backends/vulkan/kernel.h"

#include "engine/graph/op_names.h"

namespace fluxion::vulkan_backend {

KernelWork lower(const Kernel& kernel, const LoweringContext& context) {
  if (const auto* tape = std::get_if<TapeKernel>(&kernel)) return lower_tape(*tape, context);
  if (const auto* product = std::get_if<ContractKernel>(&kernel))
    return lower_contraction(*product, context);
  const auto& op = std::get<OpKernel>(kernel);
  return info(op.op).op_class == OpClass::fused ? lower_attention(op, context)
                                                : lower_op(op, context);
}

}  // namespace fluxion::vulkan_backend
