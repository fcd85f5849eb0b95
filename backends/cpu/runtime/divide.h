// Division of sizes.
#pragma once

#include <cstdint>

namespace fluxion::cpu_backend {

// The least integer that is not below a / b, for b > 0.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a / b + (a % b > 0); }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

}  // namespace fluxion::cpu_backend
