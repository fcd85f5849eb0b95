// The enumerators of Op: one for each row of the op table. Whoever names an op includes this.
#pragma once

#include "engine/graph/op.h"

namespace fluxion {

enum class Op : std::uint8_t {
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, cost, rule) name,
#include "engine/graph/ops.def"
#undef FLUXION_OP
};

inline constexpr int op_count = 0
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, cost, rule) +1
#include "engine/graph/ops.def"
#undef FLUXION_OP
    ;

}  // namespace fluxion
