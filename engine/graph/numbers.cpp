#include "engine/graph/numbers.h"

#include <cmath>
#include <limits>

namespace fluxion {

namespace {

template <class T>
bool in_range(double number) {
  // max + 1 is a power of two, so it is exact in f64 for every T, unlike max.
  const double above = (static_cast<double>(std::numeric_limits<T>::max() / 2) + 1) * 2;
  return number >= static_cast<double>(std::numeric_limits<T>::min()) && number < above &&
         std::trunc(number) == number;
}

}  // namespace

bool can_hold(DType dtype, double number) {
  if (is_floating(dtype) && !std::isfinite(number)) return true;
  switch (dtype) {
    case DType::boolean:
      return number == 0 || number == 1;
    case DType::u8:
      return in_range<std::uint8_t>(number);
    case DType::i32:
      return in_range<std::int32_t>(number);
    case DType::u32:
      return in_range<std::uint32_t>(number);
    case DType::i64:
      return in_range<std::int64_t>(number);
    case DType::bf16:
      return std::isfinite(to_f32(to_bf16(static_cast<float>(number))));
    case DType::f16:
      return std::isfinite(to_f32(to_f16(static_cast<float>(number))));
    case DType::f32:
      return std::isfinite(static_cast<float>(number));
    case DType::f64:
      return true;
  }
  return false;
}

bool can_count(DType dtype, std::int64_t length) {
  return is_floating(dtype) || length == 0 || can_hold(dtype, static_cast<double>(length - 1));
}

}  // namespace fluxion
