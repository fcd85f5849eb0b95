// Shape rules: which operands each op of the table accepts, and the types of its outputs.
#pragma once

#include <span>
#include <vector>

#include "engine/error.h"
#include "engine/graph/op.h"

namespace fluxion {

// The output types of `op` on inputs of these types. Throws ShapeError or DTypeError, which names
// the op, the inputs and the caller's place.
std::vector<TensorType> infer_types(Op op, const Attributes& attributes,
                                    std::span<const TensorType> inputs, const Location& where);

// The common shape of a and b under NumPy's broadcasting. Throws ShapeError in the name of `op`.
Shape broadcast_shapes(Op op, const TensorType& a, const TensorType& b, const Location& where);

// An axis in [-rank, rank) as one in [0, rank). Throws ShapeError in the name of `op`.
std::int64_t normal_axis(Op op, std::int64_t axis, const TensorType& type, const Location& where);
// The axes in [0, rank), ascending; all if none is listed. Throws ShapeError, also for one listed
// twice.
Dims normal_axes(Op op, const Dims& axes, const TensorType& type, const Location& where);

}  // namespace fluxion
