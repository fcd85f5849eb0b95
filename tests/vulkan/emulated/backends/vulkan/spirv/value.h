// Stands in for backends/vulkan/spirv/value.h: a value is a number, and operators compute it as the
// least exact device may that Vulkan allows. So math.cpp, compiled with this, runs without a
// device.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <vector>

namespace fluxion::vulkan_backend::spirv {

// What devices differ in.
struct Machine {
  bool fused = true;     // Fma rounds once
  bool flushes = false;  // subnormal operands and results are zero
  bool rough = false;    // division, Sqrt and InverseSqrt err as much as they may
};
inline Machine machine;

class Module;
extern Module the_module;

enum class Scalar : std::uint8_t { boolean, u32, i32, f32 };
struct Type {
  Scalar scalar = Scalar::u32;
  bool operator==(const Type&) const = default;
  bool is_float() const { return scalar == Scalar::f32; }
};
inline constexpr Type Bool{Scalar::boolean}, U32{Scalar::u32}, I32{Scalar::i32}, F32{Scalar::f32};

inline float flushed(float x) {
  const bool subnormal = std::abs(x) < std::numeric_limits<float>::min();
  return machine.flushes && subnormal ? std::copysign(0.0f, x) : x;
}

class Value {
 public:
  Value() = default;
  Value(Type type, std::uint32_t bits) : type_(type), bits_(bits) {}
  explicit Value(float number) : Value(F32, std::bit_cast<std::uint32_t>(number)) {}

  Type type() const { return type_; }
  Module& module() const { return the_module; }
  std::uint32_t bits() const { return bits_; }
  std::int32_t as_signed() const { return static_cast<std::int32_t>(bits_); }
  // As an operand of arithmetic.
  float number() const { return flushed(std::bit_cast<float>(bits_)); }
  std::uint32_t id() const {
    operands.push_back(*this);
    return static_cast<std::uint32_t>(operands.size() - 1);
  }
  // Those whose ids were asked for since the last instruction by ids.
  static inline std::vector<Value> operands;

 private:
  Type type_;
  std::uint32_t bits_ = 0;
};

// Off by up to `units` of the last place, as the operands decide.
inline float rough_number(double exact, double units, std::uint32_t seed) {
  const auto rounded = static_cast<float>(exact);
  if (!machine.rough || !std::isfinite(rounded) || std::abs(rounded) < 0x1p-125f)
    return flushed(rounded);
  seed = (seed ^ seed >> 16) * 0x7feb352du;
  seed = (seed ^ seed >> 15) * 0x846ca68bu;
  // The worst ones most often.
  const double noise = std::clamp((seed >> 8) * 0x1p-22 - 2, -1.0, 1.0);
  return static_cast<float>(exact +
                            noise * (units - 0.5) * std::ldexp(1.0, std::ilogb(exact) - 23));
}
inline float divided(float a, float b) {
  const std::uint32_t seed = std::bit_cast<std::uint32_t>(a) * 3 + std::bit_cast<std::uint32_t>(b);
  // The reciprocal of larger ones may be flushed.
  const bool lost = machine.rough && std::abs(b) > 0x1p126f;
  const double quotient = static_cast<double>(a) / b;
  return rough_number(lost ? 0 * quotient : quotient, 2.5, seed);
}
inline float inverse_root(float a) {
  if (!machine.rough) return flushed(static_cast<float>(1 / std::sqrt(static_cast<double>(a))));
  // Of other numbers it is undefined.
  if (!(a > 0)) return 42;
  return rough_number(1 / std::sqrt(static_cast<double>(a)), 2, std::bit_cast<std::uint32_t>(a));
}
inline float root(float a) {
  return machine.rough && a > 0 && std::isfinite(a) ? divided(1, inverse_root(a))
                                                    : flushed(std::sqrt(a));
}

template <class T>
concept Number = std::integral<T> || std::floating_point<T>;
inline Value constant_like(Value other, double number) {
  if (other.type().is_float()) return Value(static_cast<float>(number));
  return {other.type(), static_cast<std::uint32_t>(static_cast<std::int64_t>(number))};
}

#define FLUXION_EMULATED_ARITHMETIC(symbol)                                       \
  inline Value operator symbol(Value a, Value b) {                                \
    if (a.type().is_float()) return Value(flushed(a.number() symbol b.number())); \
    return {a.type(), a.bits() symbol b.bits()};                                  \
  }
FLUXION_EMULATED_ARITHMETIC(+)
FLUXION_EMULATED_ARITHMETIC(-)
FLUXION_EMULATED_ARITHMETIC(*)
#undef FLUXION_EMULATED_ARITHMETIC
inline Value operator/(Value a, Value b) { return Value(divided(a.number(), b.number())); }
inline Value operator-(Value a) {
  return a.type().is_float() ? Value(F32, a.bits() ^ 0x80000000u) : Value(a.type(), 0 - a.bits());
}

#define FLUXION_EMULATED_BITS(symbol) \
  inline Value operator symbol(Value a, Value b) { return {a.type(), a.bits() symbol b.bits()}; }
FLUXION_EMULATED_BITS(&)
FLUXION_EMULATED_BITS(|)
FLUXION_EMULATED_BITS(^)
FLUXION_EMULATED_BITS(<<)
#undef FLUXION_EMULATED_BITS
inline Value operator>>(Value a, Value b) {
  return {a.type(), a.type() == I32 ? static_cast<std::uint32_t>(a.as_signed() >> b.bits())
                                    : a.bits() >> b.bits()};
}
inline Value operator~(Value a) { return {a.type(), ~a.bits()}; }
inline Value operator!(Value a) { return {Bool, a.bits() == 0}; }

#define FLUXION_EMULATED_COMPARISON(symbol)                                 \
  inline Value operator symbol(Value a, Value b) {                          \
    if (a.type().is_float()) return {Bool, a.number() symbol b.number()};   \
    if (a.type() == I32) return {Bool, a.as_signed() symbol b.as_signed()}; \
    return {Bool, a.bits() symbol b.bits()};                                \
  }
FLUXION_EMULATED_COMPARISON(<)
FLUXION_EMULATED_COMPARISON(<=)
FLUXION_EMULATED_COMPARISON(>)
FLUXION_EMULATED_COMPARISON(>=)
FLUXION_EMULATED_COMPARISON(==)
FLUXION_EMULATED_COMPARISON(!=)
#undef FLUXION_EMULATED_COMPARISON

#define FLUXION_EMULATED_CONSTANT(symbol)                     \
  template <Number T>                                         \
  Value operator symbol(Value a, T b) {                       \
    return a symbol constant_like(a, static_cast<double>(b)); \
  }                                                           \
  template <Number T>                                         \
  Value operator symbol(T a, Value b) {                       \
    return constant_like(b, static_cast<double>(a)) symbol b; \
  }
FLUXION_EMULATED_CONSTANT(+)
FLUXION_EMULATED_CONSTANT(-)
FLUXION_EMULATED_CONSTANT(*)
FLUXION_EMULATED_CONSTANT(/)
FLUXION_EMULATED_CONSTANT(&)
FLUXION_EMULATED_CONSTANT(|)
FLUXION_EMULATED_CONSTANT(^)
FLUXION_EMULATED_CONSTANT(<<)
FLUXION_EMULATED_CONSTANT(>>)
FLUXION_EMULATED_CONSTANT(<)
FLUXION_EMULATED_CONSTANT(<=)
FLUXION_EMULATED_CONSTANT(>)
FLUXION_EMULATED_CONSTANT(>=)
FLUXION_EMULATED_CONSTANT(==)
FLUXION_EMULATED_CONSTANT(!=)
#undef FLUXION_EMULATED_CONSTANT

inline Value select(Value condition, Value a, Value b) { return condition.bits() ? a : b; }
inline Value min(Value a, Value b) { return select(a < b, a, b); }
inline Value max(Value a, Value b) { return select(a < b, b, a); }
inline Value min(Value a, Number auto b) { return min(a, constant_like(a, b)); }
inline Value max(Value a, Number auto b) { return max(a, constant_like(a, b)); }
inline Value fma(Value a, Value b, Value c) {
  if (!machine.fused) return a * b + c;
  return Value(flushed(std::fma(a.number(), b.number(), c.number())));
}
struct Product {
  Value low, high;
};
inline Product multiply_extended(Value a, Value b) {
  const std::uint64_t product = std::uint64_t{a.bits()} * b.bits();
  return {{U32, static_cast<std::uint32_t>(product)},
          {U32, static_cast<std::uint32_t>(product >> 32)}};
}
inline Value multiply_high(Value a, Value b) { return multiply_extended(a, b).high; }
inline Value bitcast(Type type, Value a) { return {type, a.bits()}; }
inline Value convert(Type type, Value a) {
  if (type == F32)
    return Value(a.type() == I32 ? static_cast<float>(a.as_signed())
                                 : static_cast<float>(a.bits()));
  // (Out of range it is undefined.)
  const float within = std::clamp(a.number(), -0x1p31f, 0x1.fffffep31f);
  return {type,
          std::isnan(within) ? 0 : static_cast<std::uint32_t>(static_cast<std::int64_t>(within))};
}
inline Value absolute(Value a) { return {F32, a.bits() & 0x7FFFFFFFu}; }
inline Value floor(Value a) { return Value(std::floor(a.number())); }
inline Value round_even(Value a) { return Value(std::nearbyint(a.number())); }

}  // namespace fluxion::vulkan_backend::spirv
