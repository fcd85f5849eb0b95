// Conversions between element types, and the elementwise ops by their names.
#include <spirv/unified1/GLSL.std.450.h>

#include <array>

#include "backends/vulkan/spirv/math.h"
#include "backends/vulkan/spirv/module.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"

namespace fluxion::vulkan_backend::spirv {

Value convert_number(Type type, Value a) {
  if (type == a.type()) return a;
  Module& m = a.module();
  if (type == Bool) return a != 0;
  if (a.type() != F32 || type == F32) return convert(type, a);
  // Out of range the instruction gives anything.
  const bool is_signed = type == I32;
  const float above = is_signed ? 0x1p31f : 0x1p32f, lowest = is_signed ? -0x1p31f : 0.0f;
  const Value too_high = a >= above, too_low = a < lowest;
  const Value inside = select(too_high | too_low | is_nan(a), m.f32(0), a);
  const Value most = m.constant(type, is_signed ? 0x7FFFFFFFu : 0xFFFFFFFFu);
  const Value least = m.constant(type, is_signed ? 0x80000000u : 0u);
  return select(too_high, most, select(too_low, least, convert(type, inside)));
}

// As engine/graph/dtype.cpp does it. bf16 is the upper half of an f32.
Value to_bf16(Value a) {
  const Value bits = bitcast(U32, a);
  const Value rounded = (bits + (((bits >> 16) & 1) + 0x7FFFu)) >> 16;
  return select(is_nan(a), (bits >> 16) | 0x0040u, rounded);
}

Value from_bf16(Value bits) { return bitcast(F32, bits << 16); }

Value to_f16(Value a) {
  Module& m = a.module();
  const Value bits = bitcast(U32, a), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  const Value normal = (magnitude - 0x38000000u + ((magnitude >> 13) & 1) + 0x0FFFu) >> 13;
  // Below 2^-14 the addition of 0.5, whose last bit is 2^-24, rounds to the subnormals.
  const Value subnormal = bitcast(U32, bitcast(F32, magnitude) + 0.5f) - 0x3F000000u;
  Value half = select(magnitude < 0x38800000u, subnormal, normal);
  half = select(magnitude >= 0x477FF000u, m.u32(0x7C00), half);
  half = select(magnitude > 0x7F800000u, ((magnitude >> 13) & 0x01FFu) | 0x7E00u, half);
  return sign | half;
}

Value from_f16(Value bits) {
  const Value sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7FFFu, shifted = magnitude << 13;
  const Value special = shifted | 0x7F800000u, normal = shifted + 0x38000000u;
  const Value subnormal = bitcast(U32, convert(F32, magnitude) * 0x1p-24f);
  const Value positive =
      select(magnitude >= 0x7C00u, special, select(magnitude >= 0x0400u, normal, subnormal));
  return bitcast(F32, sign | positive);
}

std::array<Value, 2> from_f16_pair(Value pair) {
  Module& m = pair.module();
  if (!m.target().preserves_f16_subnormals) return {from_f16(pair), from_f16(pair >> 16)};
  m.preserve_f16_subnormals();
  const Value both = m.extended(GLSLstd450UnpackHalf2x16, F32x2, {pair.id()});
  return {part(both, 0), part(both, 1)};
}

namespace {

Value absolute_of(Value a) {
  if (a.type() == I32) return select(a < 0, -a, a);
  return a.type() == U32 ? a : absolute(a);
}

Value sign_of(Value a) {
  const Value one = constant_like(a, 1);
  if (a.type() == U32) return select(a == 0, a, one);
  // Zeros of either sign, and NaN, are their own sign.
  return select(a > 0, one, select(a < 0, constant_like(a, -1), a));
}

}  // namespace

Value elementwise(Op op, Type result, std::span<const Value> operands) {
  const auto at = [&](std::size_t i) {
    if (i >= operands.size())
      throw Error("vulkan: " + std::string(to_string(op)) + " lacks an operand");
    return operands[i];
  };
  const Value a = at(0);
  const bool floating = a.type() == F32;
  switch (op) {
    case Op::identity:
    case Op::stop_gradient:
      return a;
    case Op::convert:
      return convert_number(result, a);
    case Op::neg:
      return -a;
    case Op::abs:
      return absolute_of(a);
    case Op::sign:
      return sign_of(a);
    case Op::add:
      return a + at(1);
    case Op::sub:
      return a - at(1);
    case Op::mul:
      return a * at(1);
    case Op::maximum:
      return maximum(a, at(1));
    case Op::minimum:
      return minimum(a, at(1));
    case Op::shift_right:
      return a >> (at(1) & 31);
    case Op::lt:
      return a < at(1);
    case Op::le:
      return a <= at(1);
    case Op::gt:
      return a > at(1);
    case Op::ge:
      return a >= at(1);
    case Op::eq:
      return a == at(1);
    case Op::ne:
      return a != at(1);
    case Op::where:
      return select(a, at(1), at(2));
    default:
      break;
  }
  if (floating) switch (op) {
      case Op::exp:
        return exp(a);
      case Op::expm1:
        return expm1(a);
      case Op::log:
        return log(a);
      case Op::log1p:
        return log1p(a);
      case Op::sin:
        return sin(a);
      case Op::cos:
        return cos(a);
      case Op::tanh:
        return tanh(a);
      case Op::sigmoid:
        return sigmoid(a);
      case Op::sigmoid_slope:
        return sigmoid_slope(a);
      case Op::erf:
        return erf(a);
      case Op::erfc:
        return erfc(a);
      case Op::sqrt:
        return square_root(a);
      case Op::rsqrt:
        return reciprocal_square_root(a);
      case Op::floor:
        return floor(a);
      case Op::div:
        return divide(a, at(1));
      case Op::pow:
        return pow(a, at(1));
      case Op::atan2:
        return atan2(a, at(1));
      case Op::hypot:
        return hypot(a, at(1));
      case Op::strong_mul:
        return strong_product(a, at(1));
      case Op::strong_div:
        return strong_quotient(a, at(1));
      default:
        break;
    }
  throw Error("vulkan: no elementwise kernel of " + std::string(to_string(op)));
}

}  // namespace fluxion::vulkan_backend::spirv
