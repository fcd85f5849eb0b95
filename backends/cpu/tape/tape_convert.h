// Conversion of single lanes between all element types, storage forms included. This file alone
// says what a conversion does.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "backends/cpu/runtime/with_f64.h"
#include "engine/graph/dtype.h"

namespace fluxion::cpu_backend {

// A boolean lane of a register: all bits set or none.
struct LaneBool {
  std::uint32_t bits = 0;
};

// A boolean in memory: written as 0 or 1. Any other byte is true as well: memory may come from
// elsewhere, and a C++ bool of such a byte would be undefined.
struct StoredBool {
  std::uint8_t byte = 0;
};

// Floating to integer: truncates, saturates, NaN becomes 0. Integer to integer: wraps. Anything to
// boolean: whether it differs from 0.
template <class To, class From>
inline To convert_lane(From from) {
  if constexpr (std::is_same_v<From, To>) {
    return from;
  } else if constexpr (std::is_same_v<From, LaneBool>) {
    return convert_lane<To>(static_cast<std::int32_t>(from.bits & 1));
  } else if constexpr (std::is_same_v<From, BFloat16>) {
    return convert_lane<To>(std::bit_cast<float>(std::uint32_t{from.bits} << 16));
  } else if constexpr (std::is_same_v<From, Float16>) {
    return convert_lane<To>(to_f32(from));
  } else if constexpr (std::is_same_v<From, StoredBool>) {
    return convert_lane<To>(static_cast<std::int32_t>(from.byte != 0));
  } else if constexpr (std::is_same_v<To, LaneBool>) {
    return LaneBool{from != From(0) ? 0xFFFFFFFFu : 0u};
  } else if constexpr (std::is_same_v<To, StoredBool>) {
    return StoredBool{from != From(0)};
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return to_bf16(static_cast<float>(from));
  } else if constexpr (std::is_same_v<To, Float16>) {
    return to_f16(static_cast<float>(from));
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    // The first value above the range is a power of two, exact in both floating types.
    constexpr From above = static_cast<From>(std::numeric_limits<To>::max() / 2 + 1) * 2;
    constexpr From lowest = static_cast<From>(std::numeric_limits<To>::min());
    return from >= above    ? std::numeric_limits<To>::max()
           : from >= lowest ? static_cast<To>(from)
           : from < lowest  ? std::numeric_limits<To>::min()
                            : To(0);
  } else {
    return static_cast<To>(from);
  }
}

// Calls f with a value-initialised lane of the register form of `dtype`.
template <class F>
decltype(auto) with_register_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(Wide{});
    case DType::i32:
      return f(std::int32_t{});
    case DType::u32:
      return f(std::uint32_t{});
    case DType::boolean:
      return f(LaneBool{});
    default:
      return f(float{});
  }
}

// The same for the storage form.
template <class F>
decltype(auto) with_storage_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::boolean:
      return f(StoredBool{});
    case DType::u8:
      return f(std::uint8_t{});
    case DType::i32:
      return f(std::int32_t{});
    case DType::u32:
      return f(std::uint32_t{});
    case DType::i64:
      return f(std::int64_t{});
    case DType::bf16:
      return f(BFloat16{});
    case DType::f16:
      return f(Float16{});
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(Wide{});
  }
  return f(float{});
}

}  // namespace fluxion::cpu_backend
