// Moving lanes between buffers and registers, with conversion from and to the storage form.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/tape_walk.h"
#include "engine/dtype.h"

namespace fluxion::cpu_backend {

// out[i] = in[i * step], i < n; `in` and `step` in stored elements, `out` in register lanes.
using CopyIn = void (*)(std::byte* out, const std::byte* in, std::int64_t step, std::int64_t n);
// out[i * step] = in[i], i < n; `out` and `step` in stored elements, `in` in register lanes.
using CopyOut = void (*)(std::byte* out, std::int64_t step, const std::byte* in, std::int64_t n);

CopyIn find_copy_in(DType storage, DType lane);
CopyOut find_copy_out(DType lane, DType storage);

// Whether a dtype has the same form in memory and in a register.
constexpr bool same_form(DType storage, DType lane) { return storage == lane && storage != DType::boolean; }

// The lanes [first, last) of a run of n at which all ranges of the access hold. values[f] is function f at lane 0, steps[f] its step.
struct LaneRange {
  std::int64_t first, last;
};
LaneRange valid_lanes(const Access& access, const std::int64_t* values, const std::int64_t* steps, std::int64_t n);

// lane i = value + i * step in dtype
void fill_affine(std::byte* out, DType dtype, std::int64_t value, std::int64_t step, std::int64_t n);

}  // namespace fluxion::cpu_backend
