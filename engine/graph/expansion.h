// The expansions that define the fused ops: what softmax, layer_norm, conv2d, attention and its
// derivatives are in terms of the other ops.
//
// One definition serves everybody: the planner puts it in a fused op's place where the backend has
// no kernel for it, autograd differentiates it for the orders that have no rule of their own, and
// tests compare kernels with it.
#pragma once

#include <vector>

#include "engine/cost_model.h"
#include "engine/graph/tensor.h"

namespace fluxion {

// Attention, its dual or its backward: the fused ops that backends may have kernels for, which read
// their operands through OpKernel::views.
bool is_attention(Op op);

// The outputs of a fused `op` on these inputs, built from ops that are not fused. Where there are
// several formulas, `costs` says which suits the device. Throws Error for any other op.
std::vector<Tensor> expansion(Op op, const Attributes& attributes,
                              const std::vector<Tensor>& inputs, const CostModel& costs);

// An image [batch, height, width, channels] with spread - 1 zeros between its pixels, then padded
// by `low` and `high`, which may be negative (cropped); everything of height and width. What a
// convolution's kernel slides over.
Tensor spread_and_pad(const Tensor& image, const Dims& spread, const Dims& low, const Dims& high,
                      const CostModel& costs);

}  // namespace fluxion
