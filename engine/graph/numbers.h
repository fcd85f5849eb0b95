// Which numbers an element type can hold, and how conversion treats the others.
#pragma once

#include "engine/graph/dtype.h"

namespace fluxion {

// Whether a tensor of `dtype` can hold `number`. Every C++ number that meets a tensor (an Operand,
// full, pad, ..) must satisfy this rule, else DTypeError:
//   bool, integers  exactly the number: whole and in range (bool: 0 or 1)
//   floats          NaN, the infinities, and each finite number that rounds to a finite one
bool can_hold(DType dtype, double number);
// Whether it holds the positions of an axis: each exactly, or, of floats, rounded.
bool can_count(DType dtype, std::int64_t length);

// How every backend converts between element types (Op::convert, and stores to storage types):
//   float to integer    towards zero; a number beyond the range, or an infinity, becomes the
//                       nearest end of the range; NaN becomes 0
//   integer to integer  modulo 2^bits
//   bool to number      0 or 1
//   anything to bool    whether it differs from zero; NaN does
//   anything to float   to nearest, ties to even; infinity beyond the range; NaN stays NaN.
//                       bf16 and f16 are rounded from f32, so f64 and integers round to f32 first

}  // namespace fluxion
