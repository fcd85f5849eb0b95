#include "engine/graph/dtype.h"

#include <cmath>

namespace fluxion {

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::boolean:
      return "bool";
    case DType::u8:
      return "u8";
    case DType::i32:
      return "i32";
    case DType::u32:
      return "u32";
    case DType::i64:
      return "i64";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
  }
  return "?";
}

// bf16 is the upper half of an f32. To round, add just under half a unit of the last kept bit, and
// that bit itself, which sends ties to even.
BFloat16 to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value))
    // The quiet bit: without it, a NaN whose payload is in the lost half would become infinity.
    return {static_cast<std::uint16_t>(bits >> 16 | 0x0040)};
  return {static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}

float to_f32(BFloat16 value) { return std::bit_cast<float>(std::uint32_t{value.bits} << 16); }

// f16 has 5 bits of exponent (bias 15) and 10 of fraction; f32 has 8 (bias 127) and 23.
Float16 to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000;
  const std::uint32_t magnitude = bits & 0x7FFFFFFF;
  std::uint32_t half = 0;
  if (magnitude > 0x7F800000) {
    half = 0x7E00 | (magnitude >> 13 & 0x01FF);
  } else if (magnitude >= 0x477FF000) {
    // At least 65520, half-way between the largest f16 and the next power of two: infinity.
    half = 0x7C00;
  } else if (magnitude < 0x38800000) {
    // Below 2^-14: subnormal. The last bit of 0.5f is 2^-24, so the addition itself rounds to the
    // subnormals.
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3F000000;
  } else {
    half = (magnitude - 0x38000000 + 0x0FFF + (magnitude >> 13 & 1)) >> 13;
  }
  return {static_cast<std::uint16_t>(sign | half)};
}

float to_f32(Float16 value) {
  const std::uint32_t sign = std::uint32_t{value.bits & 0x8000u} << 16;
  const std::uint32_t magnitude = value.bits & 0x7FFFu;
  if (magnitude >= 0x7C00)
    return std::bit_cast<float>(sign | 0x7F800000 | (magnitude & 0x03FF) << 13);
  if (magnitude >= 0x0400) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000));
  const float subnormal = std::ldexp(static_cast<float>(magnitude), -24);
  return sign ? -subnormal : subnormal;
}

}  // namespace fluxion
