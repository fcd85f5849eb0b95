#include "backends/vulkan/spirv/value.h"

#include <spirv/unified1/GLSL.std.450.h>

#include <array>
#include <vector>

#include "backends/vulkan/spirv/module.h"

namespace fluxion::vulkan_backend::spirv {

namespace {

bool is_boolean(Value a) { return a.type().scalar == Scalar::boolean; }
bool is_signed(Value a) { return a.type().scalar == Scalar::i32; }
bool is_integer(Value a) { return a.type() == U32 || a.type() == I32; }

// The constant f(a, b), if both are known 32-bit integers.
template <class F>
std::optional<Value> folded(Value a, Value b, F f) {
  if (!is_integer(a) || !a.known() || !b.known()) return std::nullopt;
  return a.module().constant(a.type(), f(*a.known(), *b.known()));
}

// The same for comparisons: f(signed) for i32, else f(unsigned).
template <class F>
std::optional<Value> compared(Value a, Value b, F f) {
  if (!is_integer(a) || !a.known() || !b.known()) return std::nullopt;
  const bool result =
      is_signed(a) ? f(static_cast<std::int32_t>(*a.known()), static_cast<std::int32_t>(*b.known()))
                   : f(*a.known(), *b.known());
  return a.module().boolean(result);
}

// f's instruction for the type of a.
Value by_type(Value a, Value b, Type result, spv::Op of_float, spv::Op of_signed,
              spv::Op of_unsigned, bool arithmetic) {
  const spv::Op op = a.type().is_float() ? of_float : is_signed(a) ? of_signed : of_unsigned;
  return a.module().emit(op, result, {a.id(), b.id()}, arithmetic);
}

Type boolean_like(Value a) { return {Scalar::boolean, a.type().components}; }

bool is_power_of_two(std::uint32_t n) { return std::has_single_bit(n); }
std::uint32_t log2_of(std::uint32_t n) { return static_cast<std::uint32_t>(std::countr_zero(n)); }

// a / d for any u32 a and known d: T. Granlund and P. L. Montgomery, "Division by Invariant
// Integers using Multiplication" (1994).
Value quotient(Value a, std::uint32_t d) {
  Module& m = a.module();
  if (is_power_of_two(d)) return a >> m.u32(log2_of(d));
  const std::uint32_t bits = static_cast<std::uint32_t>(std::bit_width(d - 1));  // 2^bits >= d
  const std::uint64_t power = std::uint64_t{1} << bits;
  const std::uint32_t factor =
      static_cast<std::uint32_t>(((power - d) << 32) / d + 1);  // of 2^32 + factor
  const Value t = multiply_high(a, m.u32(factor));
  return (t + ((a - t) >> m.u32(1))) >> m.u32(bits - 1);
}

}  // namespace

Value constant_like(Value other, double number) {
  const Type type = other.type();
  Module& m = other.module();
  if (type.scalar == Scalar::f32)
    return m.constant(type, std::bit_cast<std::uint32_t>(static_cast<float>(number)));
  return m.constant(type, static_cast<std::uint32_t>(static_cast<std::int64_t>(number)));
}

Value operator+(Value a, Value b) {
  if (is_integer(a)) {
    if (a.is(0)) return b;
    if (b.is(0)) return a;
    if (const auto c = folded(a, b, [](auto x, auto y) { return x + y; })) return *c;
  }
  return by_type(a, b, a.type(), spv::Op::OpFAdd, spv::Op::OpIAdd, spv::Op::OpIAdd, true);
}

Value operator-(Value a, Value b) {
  if (is_integer(a)) {
    if (b.is(0)) return a;
    if (const auto c = folded(a, b, [](auto x, auto y) { return x - y; })) return *c;
  }
  return by_type(a, b, a.type(), spv::Op::OpFSub, spv::Op::OpISub, spv::Op::OpISub, true);
}

Value operator*(Value a, Value b) {
  if (is_integer(a)) {
    if (a.is(0) || b.is(1)) return a;
    if (b.is(0) || a.is(1)) return b;
    if (const auto c = folded(a, b, [](auto x, auto y) { return x * y; })) return *c;
  }
  return by_type(a, b, a.type(), spv::Op::OpFMul, spv::Op::OpIMul, spv::Op::OpIMul, true);
}

Value operator/(Value a, Value b) {
  if (a.type() == U32 && b.known() && *b.known() != 0) {
    if (b.is(1)) return a;
    if (const auto c = folded(a, b, [](auto x, auto y) { return x / y; })) return *c;
    return quotient(a, *b.known());
  }
  return by_type(a, b, a.type(), spv::Op::OpFDiv, spv::Op::OpSDiv, spv::Op::OpUDiv, true);
}

Value operator%(Value a, Value b) {
  if (a.type() == U32 && b.known() && *b.known() != 0) {
    if (const auto c = folded(a, b, [](auto x, auto y) { return x % y; })) return *c;
    const std::uint32_t d = *b.known();
    if (is_power_of_two(d)) return a & a.module().u32(d - 1);
    return a - quotient(a, d) * b;
  }
  return by_type(a, b, a.type(), spv::Op::OpFRem, spv::Op::OpSRem, spv::Op::OpUMod, true);
}

Value operator-(Value a) {
  const bool floating = a.type().is_float();
  if (is_integer(a) && a.known()) return a.module().constant(a.type(), 0 - *a.known());
  return a.module().emit(floating ? spv::Op::OpFNegate : spv::Op::OpSNegate, a.type(), {a.id()},
                         true);
}

Value operator&(Value a, Value b) {
  if (is_boolean(a)) {
    if (a.is(0) || b.is(1)) return a;
    if (b.is(0) || a.is(1)) return b;
    return a.module().emit(spv::Op::OpLogicalAnd, a.type(), {a.id(), b.id()});
  }
  if (const auto c = folded(a, b, [](auto x, auto y) { return x & y; })) return *c;
  return a.module().emit(spv::Op::OpBitwiseAnd, a.type(), {a.id(), b.id()});
}

Value operator|(Value a, Value b) {
  if (is_boolean(a)) {
    if (a.is(1) || b.is(0)) return a;
    if (b.is(1) || a.is(0)) return b;
    return a.module().emit(spv::Op::OpLogicalOr, a.type(), {a.id(), b.id()});
  }
  if (const auto c = folded(a, b, [](auto x, auto y) { return x | y; })) return *c;
  return a.module().emit(spv::Op::OpBitwiseOr, a.type(), {a.id(), b.id()});
}

Value operator^(Value a, Value b) {
  if (is_boolean(a)) return a.module().emit(spv::Op::OpLogicalNotEqual, a.type(), {a.id(), b.id()});
  if (const auto c = folded(a, b, [](auto x, auto y) { return x ^ y; })) return *c;
  return a.module().emit(spv::Op::OpBitwiseXor, a.type(), {a.id(), b.id()});
}

Value operator<<(Value a, Value b) {
  if (b.is(0)) return a;
  if (const auto c = folded(a, b, [](auto x, auto y) { return x << (y & 31); })) return *c;
  return a.module().emit(spv::Op::OpShiftLeftLogical, a.type(), {a.id(), b.id()});
}

Value operator>>(Value a, Value b) {
  if (b.is(0)) return a;
  if (is_signed(a))
    return a.module().emit(spv::Op::OpShiftRightArithmetic, a.type(), {a.id(), b.id()});
  if (const auto c = folded(a, b, [](auto x, auto y) { return x >> (y & 31); })) return *c;
  return a.module().emit(spv::Op::OpShiftRightLogical, a.type(), {a.id(), b.id()});
}

Value operator~(Value a) { return a.module().emit(spv::Op::OpNot, a.type(), {a.id()}); }

Value operator!(Value a) {
  if (a.known()) return a.module().boolean(*a.known() == 0);
  return a.module().emit(spv::Op::OpLogicalNot, a.type(), {a.id()});
}

Value operator<(Value a, Value b) {
  if (is_boolean(a)) return b & !a;
  if (const auto c = compared(a, b, [](auto x, auto y) { return x < y; })) return *c;
  return by_type(a, b, boolean_like(a), spv::Op::OpFOrdLessThan, spv::Op::OpSLessThan,
                 spv::Op::OpULessThan, false);
}
Value operator<=(Value a, Value b) {
  if (is_boolean(a)) return b | !a;
  if (const auto c = compared(a, b, [](auto x, auto y) { return x <= y; })) return *c;
  return by_type(a, b, boolean_like(a), spv::Op::OpFOrdLessThanEqual, spv::Op::OpSLessThanEqual,
                 spv::Op::OpULessThanEqual, false);
}
Value operator>(Value a, Value b) {
  if (is_boolean(a)) return a & !b;
  if (const auto c = compared(a, b, [](auto x, auto y) { return x > y; })) return *c;
  return by_type(a, b, boolean_like(a), spv::Op::OpFOrdGreaterThan, spv::Op::OpSGreaterThan,
                 spv::Op::OpUGreaterThan, false);
}
Value operator>=(Value a, Value b) {
  if (is_boolean(a)) return a | !b;
  if (const auto c = compared(a, b, [](auto x, auto y) { return x >= y; })) return *c;
  return by_type(a, b, boolean_like(a), spv::Op::OpFOrdGreaterThanEqual,
                 spv::Op::OpSGreaterThanEqual, spv::Op::OpUGreaterThanEqual, false);
}
Value operator==(Value a, Value b) {
  if (is_boolean(a)) return a.module().emit(spv::Op::OpLogicalEqual, a.type(), {a.id(), b.id()});
  if (const auto c = compared(a, b, [](auto x, auto y) { return x == y; })) return *c;
  return by_type(a, b, boolean_like(a), spv::Op::OpFOrdEqual, spv::Op::OpIEqual, spv::Op::OpIEqual,
                 false);
}
Value operator!=(Value a, Value b) {
  if (is_boolean(a)) return a ^ b;
  if (const auto c = compared(a, b, [](auto x, auto y) { return x != y; })) return *c;
  return by_type(a, b, boolean_like(a), spv::Op::OpFUnordNotEqual, spv::Op::OpINotEqual,
                 spv::Op::OpINotEqual, false);
}

Value select(Value condition, Value a, Value b) {
  if (condition.known()) return *condition.known() ? a : b;
  if (a.id() == b.id()) return a;
  return a.module().emit(spv::Op::OpSelect, a.type(), {condition.id(), a.id(), b.id()});
}

Value min(Value a, Value b) {
  if (const auto less = compared(a, b, [](auto x, auto y) { return x < y; }))
    return *less->known() ? a : b;
  return a.module().extended(is_signed(a) ? GLSLstd450SMin : GLSLstd450UMin, a.type(),
                             {a.id(), b.id()});
}
Value max(Value a, Value b) {
  if (const auto less = compared(a, b, [](auto x, auto y) { return x < y; }))
    return *less->known() ? b : a;
  return a.module().extended(is_signed(a) ? GLSLstd450SMax : GLSLstd450UMax, a.type(),
                             {a.id(), b.id()});
}

Value fma(Value a, Value b, Value c) {
  return a.module().extended(GLSLstd450Fma, a.type(), {a.id(), b.id(), c.id()}, true);
}

Product multiply_extended(Value a, Value b) {
  Module& m = a.module();
  const std::uint32_t u32 = m.type_id(U32),
                      pair = m.declare(spv::Op::OpTypeStruct, {0, u32, u32}, 0), id = m.new_id();
  m.emit(spv::Op::OpUMulExtended, {pair, id, a.id(), b.id()});
  return {m.emit(spv::Op::OpCompositeExtract, U32, {id, 0}),
          m.emit(spv::Op::OpCompositeExtract, U32, {id, 1})};
}

Value multiply_high(Value a, Value b) {
  if (const auto c = folded(a, b, [](std::uint64_t x, std::uint64_t y) {
        return static_cast<std::uint32_t>(x * y >> 32);
      }))
    return *c;
  return multiply_extended(a, b).high;
}

// With s = ceil(log2 d) - 1 and factor = ceil(2^(32 + s) / d), the error of n factor / 2^(32 + s)
// is below n d / (d 2^(32 + s)) < 1 / d for n < 2^31: too little to reach the next integer.
Split split(Value index, std::uint32_t divisor) {
  Module& m = index.module();
  if (divisor <= 1) return {index, m.u32(0)};
  if (index.known() || is_power_of_two(divisor))
    return {index / m.u32(divisor), index % m.u32(divisor)};
  const std::uint32_t shift = static_cast<std::uint32_t>(std::bit_width(divisor - 1)) - 1;
  const std::uint64_t power = std::uint64_t{1} << (32 + shift);
  const auto factor = static_cast<std::uint32_t>((power + divisor - 1) / divisor);
  const Value quotient = multiply_high(index, m.u32(factor)) >> m.u32(shift);
  return {quotient, index - quotient * m.u32(divisor)};
}

Value bitcast(Type type, Value a) {
  if (type == a.type()) return a;
  if (a.known() && type.bytes() == 4) return a.module().constant(type, *a.known());
  return a.module().emit(spv::Op::OpBitcast, type, {a.id()});
}

Value convert(Type type, Value a) {
  if (type == a.type()) return a;
  Module& m = a.module();
  if (is_boolean(a)) {
    const std::uint32_t one =
        type.scalar == Scalar::f32 ? std::bit_cast<std::uint32_t>(1.0f) : std::uint32_t{1};
    return select(a, m.constant(type, one), m.constant(type, 0));
  }
  const bool from_float = a.type().is_float(), to_float = type.is_float();
  const bool same_size = type.bytes() == a.type().bytes();
  if (from_float && to_float) return m.emit(spv::Op::OpFConvert, type, {a.id()});
  if (from_float)
    return m.emit(type.scalar == Scalar::i32 ? spv::Op::OpConvertFToS : spv::Op::OpConvertFToU,
                  type, {a.id()});
  if (to_float)
    return m.emit(is_signed(a) ? spv::Op::OpConvertSToF : spv::Op::OpConvertUToF, type, {a.id()});
  if (same_size) return bitcast(type, a);
  // (No signed type is narrower: i32 to u8 keeps the low bits, u8 to i32 adds zeros.)
  const Value widened =
      m.emit(spv::Op::OpUConvert, type.scalar == Scalar::i32 ? U32 : type, {a.id()});
  return bitcast(type, widened);
}

Value compose(std::span<const Value> parts) {
  Module& m = parts.front().module();
  const Type type{parts.front().type().scalar, static_cast<std::uint8_t>(parts.size())};
  std::array<std::uint32_t, 4> ids{};
  for (std::size_t i = 0; i < parts.size(); ++i) ids[i] = parts[i].id();
  switch (parts.size()) {
    case 1:
      return parts.front();
    case 2:
      return m.emit(spv::Op::OpCompositeConstruct, type, {ids[0], ids[1]});
    case 3:
      return m.emit(spv::Op::OpCompositeConstruct, type, {ids[0], ids[1], ids[2]});
    default:
      return m.emit(spv::Op::OpCompositeConstruct, type, {ids[0], ids[1], ids[2], ids[3]});
  }
}

Value part(Value vector, std::uint32_t index) {
  if (vector.type().components == 1) return vector;
  return vector.module().emit(spv::Op::OpCompositeExtract, vector.type().element(),
                              {vector.id(), index});
}

Value absolute(Value a) { return a.module().extended(GLSLstd450FAbs, a.type(), {a.id()}); }
Value floor(Value a) { return a.module().extended(GLSLstd450Floor, a.type(), {a.id()}); }
Value round_even(Value a) { return a.module().extended(GLSLstd450RoundEven, a.type(), {a.id()}); }
Value truncate(Value a) { return a.module().extended(GLSLstd450Trunc, a.type(), {a.id()}); }

}  // namespace fluxion::vulkan_backend::spirv
