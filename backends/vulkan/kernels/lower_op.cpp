#include "backends/vulkan/kernels/index_op.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"

namespace fluxion::vulkan_backend {

KernelWork lower_op(const OpKernel& kernel, const LoweringContext& context) {
  OpWork work(kernel, context);
  switch (kernel.op) {
    case Op::take:
      lower_take(work);
      break;
    case Op::take_along_axis:
      lower_take_along_axis(work);
      break;
    case Op::index_add:
      lower_index_add(work);
      break;
    case Op::scatter_add:
      lower_scatter_add(work);
      break;
    case Op::cumsum:
      lower_cumsum(work);
      break;
    case Op::argmax:
      lower_argmax(work);
      break;
    case Op::argsort:
      lower_argsort(work);
      break;
    case Op::random_bits:
      lower_random_bits(work);
      break;
    case Op::after:
      lower_after(work);
      break;
    default:
      throw Error("vulkan: " + std::string(to_string(kernel.op)) +
                  " has no kernel of its own; the planner lowers it to tapes or contractions");
  }
  return work.take();
}

}  // namespace fluxion::vulkan_backend
