// Numbers and element types: which number a tensor can hold, and what becomes of one that is
// converted.
#pragma once

#include "engine/graph/dtype.h"

namespace fluxion {

// Whether a tensor of `dtype` holds `number`: the one rule for every C++ number that meets a tensor
// (an Operand, full, pad, ..; DTypeError where it does not hold).
//   bool, integers  the number itself: whole and in range (bool: 0 or 1)
//   floats          NaN, the infinities, and each finite number that rounds to a finite one
bool can_hold(DType dtype, double number);

// What a conversion between element types does (Op::convert, and the stores of storage types), on
// every backend:
//   float to integer    towards zero; beyond the range, also from an infinity, its nearest end;
//                       NaN becomes 0
//   integer to integer  modulo 2^bits
//   bool to number      0 or 1
//   anything to bool    whether it differs from zero; NaN does
//   anything to float   the nearest, ties to even, infinity beyond the range; NaN stays NaN.
//                       bf16 and f16 are rounded from f32, so f64 and integers round to f32 first

}  // namespace fluxion
