// Typed elements of a tensor in host memory, read and written as f64 or as 64-bit integers.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "engine/graph/dtype.h"

namespace fluxion::reference_backend {

// Calls f with a zero of the type that `dtype` is computed in: double for floating dtypes,
// std::int64_t for integers and booleans.
template <class F>
void with_number(DType dtype, F&& f) {
  if (is_floating(dtype))
    f(double{});
  else
    f(std::int64_t{});
}

class Elements {
 public:
  Elements(std::byte* data, DType dtype) : data_(data), dtype_(dtype) {}

  DType dtype() const { return dtype_; }

  template <class Number>
  Number get(std::int64_t i) const {
    switch (dtype_) {
      case DType::boolean:
        return static_cast<Number>(read<std::uint8_t>(i) != 0);
      case DType::u8:
        return static_cast<Number>(read<std::uint8_t>(i));
      case DType::i32:
        return static_cast<Number>(read<std::int32_t>(i));
      case DType::u32:
        return static_cast<Number>(read<std::uint32_t>(i));
      case DType::i64:
        return static_cast<Number>(read<std::int64_t>(i));
      case DType::bf16:
        return static_cast<Number>(to_f32(read<BFloat16>(i)));
      case DType::f16:
        return static_cast<Number>(to_f32(read<Float16>(i)));
      case DType::f32:
        return static_cast<Number>(read<float>(i));
      case DType::f64:
        return static_cast<Number>(read<double>(i));
    }
    return {};
  }

  // Converts as engine/graph/numbers.h says: rounds to a floating dtype; truncates and saturates to
  // an integer dtype, where NaN becomes 0; a boolean is whether the value differs from zero.
  void put(std::int64_t i, double value) const {
    switch (dtype_) {
      case DType::boolean:
        return write(i, static_cast<std::uint8_t>(value != 0));
      case DType::u8:
        return write(i, saturated<std::uint8_t>(value));
      case DType::i32:
        return write(i, saturated<std::int32_t>(value));
      case DType::u32:
        return write(i, saturated<std::uint32_t>(value));
      case DType::i64:
        return write(i, saturated<std::int64_t>(value));
      case DType::bf16:
        return write(i, to_bf16(static_cast<float>(value)));
      case DType::f16:
        return write(i, to_f16(static_cast<float>(value)));
      case DType::f32:
        return write(i, static_cast<float>(value));
      case DType::f64:
        return write(i, value);
    }
  }

  // Wraps to an integer dtype, modulo a power of two; a boolean is whether the value differs from
  // zero.
  void put(std::int64_t i, std::int64_t value) const {
    switch (dtype_) {
      case DType::boolean:
        return write(i, static_cast<std::uint8_t>(value != 0));
      case DType::u8:
        return write(i, static_cast<std::uint8_t>(value));
      case DType::i32:
        return write(i, static_cast<std::int32_t>(value));
      case DType::u32:
        return write(i, static_cast<std::uint32_t>(value));
      case DType::i64:
        return write(i, value);
      // In one rounding: f64 does not hold every i64. (16-bit floats are made of f32.)
      case DType::f32:
        return write(i, static_cast<float>(value));
      case DType::bf16:
        return write(i, to_bf16(static_cast<float>(value)));
      case DType::f16:
        return write(i, to_f16(static_cast<float>(value)));
      case DType::f64:
        return write(i, static_cast<double>(value));
    }
  }

  // Copies the bits of element j of `from`, which has the same dtype, to element i.
  void copy(std::int64_t i, const Elements& from, std::int64_t j) const {
    const std::size_t size = size_of(dtype_);
    std::memmove(data_ + static_cast<std::size_t>(i) * size,
                 from.data_ + static_cast<std::size_t>(j) * size, size);
  }

 private:
  template <class T>
  T read(std::int64_t i) const {
    T value;
    std::memcpy(&value, data_ + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
    return value;
  }
  template <class T>
  void write(std::int64_t i, T value) const {
    std::memcpy(data_ + static_cast<std::size_t>(i) * sizeof(T), &value, sizeof(T));
  }

  template <class T>
  static T saturated(double value) {
    if (std::isnan(value)) return 0;
    if (value <= static_cast<double>(std::numeric_limits<T>::min()))
      return std::numeric_limits<T>::min();
    if (value >= static_cast<double>(std::numeric_limits<T>::max()))
      return std::numeric_limits<T>::max();
    return static_cast<T>(value);
  }

  std::byte* data_;
  DType dtype_;
};

}  // namespace fluxion::reference_backend
