// Division of sizes.
#pragma once

#include <concepts>
#include <type_traits>

namespace fluxion {

// The least integer that is not below a / b, for b > 0.
template <std::integral Integer>
constexpr Integer ceil_div(Integer a, std::type_identity_t<Integer> b) {
  return a / b + (a % b > 0);
}
// The least multiple of b that is not below a.
template <std::integral Integer>
constexpr Integer round_up(Integer a, std::type_identity_t<Integer> b) {
  return ceil_div(a, b) * b;
}

}  // namespace fluxion
