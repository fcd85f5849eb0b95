// Random programs of large tensors that are planned and never run: no tensor has memory. What holds
// at a few elements must hold at more than 2^20 (where bounds can't be checked point by point),
// 2^31 and 2^32 of them (where an i32 or u32 overflows).
#pragma once

#include <cstdint>
#include <string>

#include "engine/backend.h"

namespace fluxion::testing {

struct LargePlan {
  std::string failure;      // "" or what planning threw
  std::string graph;        // the smallest graph of the program that fails, else empty
  std::int64_t points = 0;  // of its largest iteration space
  std::size_t kernels = 0;
};

// The number of elements from which the tensors of program `number` are drawn: of every ten
// programs, seven have 2^20, two 2^31 and one 2^32.
std::int64_t mixed_scale(std::uint64_t number);

// Draws a program of tensors with `elements` elements and more from the seed and its number, with
// its derivative for some, and plans it for a device of these capabilities. Checked: canonicalise,
// make_plan, verify, and that every kernel fits the limits.
LargePlan plan_large_program(std::uint64_t seed, std::uint64_t number, std::int64_t elements,
                             const Capabilities& device);

}  // namespace fluxion::testing
