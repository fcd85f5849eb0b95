// Sums of products over named axes, in Einstein's notation.
#pragma once

#include <string_view>

#include "engine/graph/ops.h"

namespace fluxion {

// einsum("bik,bkj->bij", {a, b}): every letter names an axis; the result holds, for each value of
// the letters behind the arrow, the sum over all other letters of the product of the operands. One
// operand or more; the result is explicit; no letter twice in one operand or in the result, no
// ellipsis. Where an axis has size 1 in one operand and another size elsewhere, that operand is
// repeated along it. Operands are joined two at a time, the cheapest pair first, by matmul where an
// axis is summed. Throws ShapeError naming the equation.
Tensor einsum(std::string_view equation, std::span<const Tensor> operands,
              Location where = Location::current());
inline Tensor einsum(std::string_view equation, std::initializer_list<Tensor> operands,
                     Location where = Location::current()) {
  return einsum(equation, std::span<const Tensor>(operands.begin(), operands.size()), where);
}

}  // namespace fluxion
