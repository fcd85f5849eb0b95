// The elementwise functions of the op table on values in registers: f32, i32, u32 and booleans.
//
// The f32 functions are good to one or two units in the last place, with relative accuracy in the
// tails. They are those of the CPU backend (backends/cpu/tape/math-inl.h), whose polynomials they
// share; sin and cos reduce large arguments in integers instead of f64, and erfc, pow and atan2 are
// their own. Special values are right on devices that keep infinities and NaN; results and operands
// below 2^-126 may count as zero. Nothing here needs a fused multiply-add to be fused, or a division
// or square root to be more exact than Vulkan demands (tests/vulkan/emulated).
#pragma once

#include <array>
#include <span>

#include "backends/vulkan/spirv/value.h"
#include "engine/graph/op.h"

namespace fluxion::vulkan_backend::spirv {

// By the bits: drivers can't assume them away, even where they promise nothing of special values.
Value is_nan(Value a);
Value is_finite(Value a);
Value has_bits_of(Value a, float number);

Value exp(Value x);
// e^x for x in [-87, 88], without special values.
Value exp_moderate(Value x);
Value expm1(Value x);
Value log(Value x);
Value log1p(Value x);
Value sin(Value x);
Value cos(Value x);
Value tanh(Value x);
Value sigmoid(Value x);
Value sigmoid_slope(Value x);
Value erf(Value x);
Value erfc(Value x);
Value square_root(Value x);
Value reciprocal_square_root(Value x);
// Within 2.5 units for all operands: the instruction may lose divisors above 2^126.
Value divide(Value a, Value b);
Value pow(Value x, Value y);
Value atan2(Value y, Value x);
Value hypot(Value x, Value y);

// NaN if either is NaN; also of integers.
Value maximum(Value a, Value b);
Value minimum(Value a, Value b);
// a b, and 0 where either is 0.
Value strong_product(Value a, Value b);
// a / b, and 0 where a is 0.
Value strong_quotient(Value a, Value b);

// -- conversions, as engine/graph/numbers.h says

// Between f32, i32, u32 and booleans: floats truncate and saturate, NaN becomes 0.
Value convert_number(Type type, Value a);
// The 16 bits (as u32) of an f32 rounded to bf16 or f16; and back, from the low 16 bits of a u32.
Value to_bf16(Value a);
Value from_bf16(Value bits);
Value to_f16(Value a);
Value from_f16(Value bits);
// Of both halves of a u32: in one instruction, where that keeps subnormals.
std::array<Value, 2> from_f16_pair(Value pair);

// Op `op` of class elementwise; of convert, `result` is the type. Throws Error for an op that isn't
// elementwise or has no such operands.
Value elementwise(Op op, Type result, std::span<const Value> operands);

}  // namespace fluxion::vulkan_backend::spirv
