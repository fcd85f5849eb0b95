// Values of a shader that is being built: a type and the number (id) of the instruction that gives
// it. Operators on values emit instructions; constants fold.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <optional>
#include <span>

namespace fluxion::vulkan_backend::spirv {

class Module;

enum class Scalar : std::uint8_t { boolean, u8, u16, u32, i32, f16, f32 };

struct Type {
  Scalar scalar = Scalar::u32;
  std::uint8_t components = 1;  // 1 to 4
  bool operator==(const Type&) const = default;
  auto operator<=>(const Type&) const = default;
  Type element() const { return {scalar, 1}; }
  bool is_float() const { return scalar == Scalar::f16 || scalar == Scalar::f32; }
  std::uint32_t bytes() const;
};

inline constexpr Type Bool{Scalar::boolean, 1}, U8{Scalar::u8, 1}, U16{Scalar::u16, 1},
    U32{Scalar::u32, 1}, I32{Scalar::i32, 1}, F16{Scalar::f16, 1}, F32{Scalar::f32, 1};
inline constexpr Type U32x2{Scalar::u32, 2}, U32x3{Scalar::u32, 3}, U32x4{Scalar::u32, 4},
    F32x2{Scalar::f32, 2}, F32x4{Scalar::f32, 4};

class Value {
 public:
  Value() = default;
  Value(Module& module, Type type, std::uint32_t id, std::optional<std::uint32_t> bits = {})
      : module_(&module), id_(id), type_(type), bits_(bits) {}

  explicit operator bool() const { return module_ != nullptr; }
  Module& module() const { return *module_; }
  Type type() const { return type_; }
  std::uint32_t id() const { return id_; }
  // The bits of a scalar that is known while the shader is built (a boolean is 0 or 1).
  std::optional<std::uint32_t> known() const { return bits_; }
  bool is(std::uint32_t bits) const { return bits_ == bits; }

 private:
  Module* module_ = nullptr;
  std::uint32_t id_ = 0;
  Type type_;
  std::optional<std::uint32_t> bits_;
};

// A C++ number beside a value is a constant of the value's type (all components alike).
template <class T>
concept Number = std::integral<T> || std::floating_point<T>;
Value constant_like(Value other, double number);

// ---- arithmetic: operands of one type; integers wrap. Division and remainder of a u32 by a known
// number are multiplications; of i32 they truncate. f32 arithmetic is NoContraction unless
// Module::set_precise(false).

Value operator+(Value a, Value b);
Value operator-(Value a, Value b);
Value operator*(Value a, Value b);
Value operator/(Value a, Value b);
Value operator%(Value a, Value b);
Value operator-(Value a);

// ---- bits of integers; of booleans: and, or, exclusive or, not. Of a shift, b is below 32; i32
// shifts right with its sign.

Value operator&(Value a, Value b);
Value operator|(Value a, Value b);
Value operator^(Value a, Value b);
Value operator<<(Value a, Value b);
Value operator>>(Value a, Value b);
Value operator~(Value a);
Value operator!(Value a);

// ---- comparisons give booleans. With NaN all but != are false. False is below true.

Value operator<(Value a, Value b);
Value operator<=(Value a, Value b);
Value operator>(Value a, Value b);
Value operator>=(Value a, Value b);
Value operator==(Value a, Value b);
Value operator!=(Value a, Value b);

#define FLUXION_SPIRV_OPERATOR(symbol)                        \
  template <Number T>                                         \
  Value operator symbol(Value a, T b) {                       \
    return a symbol constant_like(a, static_cast<double>(b)); \
  }                                                           \
  template <Number T>                                         \
  Value operator symbol(T a, Value b) {                       \
    return constant_like(b, static_cast<double>(a)) symbol b; \
  }
FLUXION_SPIRV_OPERATOR(+)
FLUXION_SPIRV_OPERATOR(-)
FLUXION_SPIRV_OPERATOR(*)
FLUXION_SPIRV_OPERATOR(/)
FLUXION_SPIRV_OPERATOR(%)
FLUXION_SPIRV_OPERATOR(&)
FLUXION_SPIRV_OPERATOR(|)
FLUXION_SPIRV_OPERATOR(^)
FLUXION_SPIRV_OPERATOR(<<)
FLUXION_SPIRV_OPERATOR(>>)
FLUXION_SPIRV_OPERATOR(<)
FLUXION_SPIRV_OPERATOR(<=)
FLUXION_SPIRV_OPERATOR(>)
FLUXION_SPIRV_OPERATOR(>=)
FLUXION_SPIRV_OPERATOR(==)
FLUXION_SPIRV_OPERATOR(!=)
#undef FLUXION_SPIRV_OPERATOR

// ---- functions

// condition ? a : b. Both are computed.
Value select(Value condition, Value a, Value b);
// Of integers. (For f32 see math.h: the instructions lose NaN.)
Value min(Value a, Value b);
Value max(Value a, Value b);
inline Value min(Value a, Number auto b) { return min(a, constant_like(a, b)); }
inline Value max(Value a, Number auto b) { return max(a, constant_like(a, b)); }
// a b + c in f32, fused where the device can.
Value fma(Value a, Value b, Value c);
// The upper 32 bits of the product of two u32.
Value multiply_high(Value a, Value b);
struct Product {
  Value low, high;
};
Product multiply_extended(Value a, Value b);

// index / divisor and index % divisor of a u32 index below 2^31, as a multiplication.
struct Split {
  Value quotient, remainder;
};
Split split(Value index, std::uint32_t divisor);

// The same bits as another type of equal size.
Value bitcast(Type type, Value a);
// Between number types as the instructions do: u32, i32 and the 8- and 16-bit types wrap or extend;
// integers to floats round to nearest; floats to integers are undefined out of range (math.h has
// the defined conversions). A boolean becomes 0 or 1.
Value convert(Type type, Value a);

// Parts of vectors.
Value compose(std::span<const Value> parts);
Value part(Value vector, std::uint32_t index);

// f32 functions that every device computes well. NaN passes through them.
Value absolute(Value a);
Value floor(Value a);
Value round_even(Value a);
Value truncate(Value a);

}  // namespace fluxion::vulkan_backend::spirv
