#include "models/files/safetensors_type.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

namespace fluxion {

namespace {

struct FormatType {
  std::string_view name;
  std::uint64_t bits;
  std::optional<DType> dtype;  // of ours
};
// All of the format's, as of May 2026 (enum Dtype in safetensors/src/tensor.rs).
constexpr FormatType format_types[] = {{"F64", 64, DType::f64},
                                       {"F32", 32, DType::f32},
                                       {"F16", 16, DType::f16},
                                       {"BF16", 16, DType::bf16},
                                       {"I64", 64, DType::i64},
                                       {"I32", 32, DType::i32},
                                       {"U32", 32, DType::u32},
                                       {"U8", 8, DType::u8},
                                       {"BOOL", 8, DType::boolean},
                                       {"I8", 8, {}},
                                       {"I16", 16, {}},
                                       {"U16", 16, {}},
                                       {"U64", 64, {}},
                                       {"C64", 64, {}},
                                       {"F8_E4M3", 8, {}},
                                       {"F8_E5M2", 8, {}},
                                       {"F8_E8M0", 8, {}},
                                       {"F8_E4M3FNUZ", 8, {}},
                                       {"F8_E5M2FNUZ", 8, {}},
                                       {"F6_E2M3", 6, {}},
                                       {"F6_E3M2", 6, {}},
                                       {"F4", 4, {}}};

const FormatType* format_type(std::string_view name) {
  for (const FormatType& row : format_types)
    if (row.name == name) return &row;
  return nullptr;
}

std::string_view name_of_dtype(DType dtype) {
  for (const FormatType& row : format_types)
    if (row.dtype == dtype) return row.name;
  return "";
}

// A float of 8 bits: sign, exponent, mantissa.
struct SmallFloat {
  std::string_view name;
  int exponent_bits, mantissa_bits, bias;
  // What the largest exponent holds besides numbers: infinities and NaNs, as in IEEE 754; one NaN,
  // where all other bits are set; or nothing, as the one NaN is in the place of -0.
  enum class Special { infinities, one_nan, nan_for_minus_zero } special;
};
// https://arxiv.org/abs/2209.05433 and, FNUZ, https://arxiv.org/abs/2206.02915
constexpr SmallFloat small_floats[] = {
    {"F8_E4M3", 4, 3, 7, SmallFloat::Special::one_nan},
    {"F8_E5M2", 5, 2, 15, SmallFloat::Special::infinities},
    {"F8_E4M3FNUZ", 4, 3, 8, SmallFloat::Special::nan_for_minus_zero},
    {"F8_E5M2FNUZ", 5, 2, 16, SmallFloat::Special::nan_for_minus_zero}};
constexpr std::string_view power_of_two = "F8_E8M0";  // the scales of blocks in MX formats
constexpr int power_of_two_bias = 127;

double value_of(const SmallFloat& format, unsigned byte) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const bool negative = (byte & 0x80) != 0;
  const int exponent = static_cast<int>(byte & 0x7f) >> format.mantissa_bits;
  const int mantissa = static_cast<int>(byte) & ((1 << format.mantissa_bits) - 1);
  const int largest = (1 << format.exponent_bits) - 1;
  switch (format.special) {
    case SmallFloat::Special::infinities:
      if (exponent == largest && mantissa != 0) return nan;
      if (exponent == largest)
        return negative ? -std::numeric_limits<double>::infinity()
                        : std::numeric_limits<double>::infinity();
      break;
    case SmallFloat::Special::one_nan:
      if ((byte & 0x7f) == 0x7f) return nan;
      break;
    case SmallFloat::Special::nan_for_minus_zero:
      if (byte == 0x80) return nan;
      break;
  }
  const int whole = exponent == 0 ? mantissa : mantissa + (1 << format.mantissa_bits);
  const double size = std::ldexp(whole, std::max(exponent, 1) - format.bias - format.mantissa_bits);
  return negative ? -size : size;
}

std::optional<std::array<double, 256>> values_of_bytes_named(std::string_view name) {
  std::array<double, 256> values{};
  if (name == power_of_two) {
    for (int byte = 0; byte < 255; ++byte)
      values[static_cast<std::size_t>(byte)] = std::ldexp(1.0, byte - power_of_two_bias);
    values[255] = std::numeric_limits<double>::quiet_NaN();
    return values;
  }
  for (const SmallFloat& format : small_floats) {
    if (format.name != name) continue;
    for (unsigned byte = 0; byte < 256; ++byte) values[byte] = value_of(format, byte);
    return values;
  }
  return std::nullopt;
}

}  // namespace

SafetensorsType::SafetensorsType(DType dtype) : name_(name_of_dtype(dtype)), dtype_(dtype) {}

SafetensorsType::SafetensorsType(std::string name) : name_(std::move(name)) {
  if (const FormatType* type = format_type(name_)) dtype_ = type->dtype;
}

std::optional<std::uint64_t> SafetensorsType::bits() const {
  const FormatType* type = format_type(name_);
  return type != nullptr ? std::optional(type->bits) : std::nullopt;
}

std::optional<std::uint64_t> SafetensorsType::bytes_of(std::uint64_t elements) const {
  const std::optional<std::uint64_t> size = bits();
  if (!size) return std::nullopt;
  if (*size % 8 == 0) return elements * (*size / 8);
  return elements * *size % 8 == 0 ? std::optional(elements * *size / 8) : std::nullopt;
}

bool SafetensorsType::is_floating() const {
  return dtype_ ? fluxion::is_floating(*dtype_) : values_of_bytes_named(name_).has_value();
}

std::string to_string(const SafetensorsType& type) {
  return type.dtype() ? std::string(to_string(*type.dtype())) : type.name();
}

std::optional<std::array<double, 256>> values_of_bytes(const SafetensorsType& type) {
  return values_of_bytes_named(type.name());
}

}  // namespace fluxion
