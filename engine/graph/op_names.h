// The enumerators of Op: one for each row of the op table. Whoever names an op includes this.
#pragma once

#include "engine/graph/op.h"

namespace fluxion {

enum class Op : std::uint8_t {
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule) name,
#include "engine/graph/ops.def"
#undef FLUXION_OP
};

inline constexpr int op_count = 0
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule) +1
#include "engine/graph/ops.def"
#undef FLUXION_OP
    ;

// Whether an element takes a polynomial or the like, some twenty instructions: the planner never
// computes it again for a reader that is larger than the value.
constexpr bool is_transcendental(Op op) {
  switch (op) {
    case Op::exp:
    case Op::expm1:
    case Op::log:
    case Op::log1p:
    case Op::sin:
    case Op::cos:
    case Op::tanh:
    case Op::sigmoid:
    case Op::sigmoid_slope:
    case Op::erf:
    case Op::erfc:
    case Op::pow:
    case Op::atan2:
    case Op::hypot:
      return true;
    default:
      return false;
  }
}

constexpr bool is_comparison(Op op) {
  return op == Op::lt || op == Op::le || op == Op::gt || op == Op::ge || op == Op::eq ||
         op == Op::ne;
}

}  // namespace fluxion
