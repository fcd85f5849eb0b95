// Expansions define the fused ops: they express softmax, layer_norm, conv2d, attention and its
// derivatives in other ops.
//
// The planner replaces a fused op by its expansion if the backend has no kernel for the op,
// autograd differentiates the expansion where the op has no rule of that order, and tests compare
// kernels with it.
#pragma once

#include <vector>

#include "engine/cost_model.h"
#include "engine/graph/tensor.h"

namespace fluxion {

// Whether `op` is attention, its dual or its backward: the fused ops that a backend may have
// kernels for, which read their operands through OpKernel::views.
bool is_attention(Op op);
// Whether attention_backward, by the shapes of q and of the operand behind v, has the operands that
// it had when the first stored graphs were written: (q, k, v, lse, delta, u[, mask]) with delta =
// sum(u y) - cotangent of lse, in place of (q, k, v, u, cotangent of lse[, mask]). It gives the
// same gradients with more rounding, is emitted no longer, and no backend has a kernel for it.
bool is_by_delta(const Shape& q, const Shape& operand);

// The outputs of the fused op `op` on these inputs, built from ops that are not fused. Where there
// are several formulas, `costs` chooses. Throws Error for an op that is not fused.
std::vector<Tensor> expansion(Op op, const Attributes& attributes,
                              const std::vector<Tensor>& inputs, const CostModel& costs);

// An image [batch, height, width, channels] with spread - 1 zeros between its pixels, then padded
// by `low` and `high` zeros, or cropped where these are negative. The lists hold a number for
// height and one for width. A convolution's kernel slides over the result.
Tensor spread_and_pad(const Tensor& image, const Dims& spread, const Dims& low, const Dims& high,
                      const CostModel& costs);

}  // namespace fluxion
