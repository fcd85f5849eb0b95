// Copies lanes between buffers and registers and converts from and to the storage form.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/cpu/tape/affine_runs.h"
#include "engine/graph/dtype.h"

namespace fluxion::cpu_backend {

// out[i] = in[i * step], i < n; `in` and `step` in stored elements, `out` in register lanes.
using CopyIn = void (*)(std::byte* out, const std::byte* in, std::int64_t step, std::int64_t n);
// out[i * step] = in[i], i < n; `out` and `step` in stored elements, `in` in register lanes.
using CopyOut = void (*)(std::byte* out, std::int64_t step, const std::byte* in, std::int64_t n);

CopyIn find_copy_in(DType storage, DType lane);
CopyOut find_copy_out(DType lane, DType storage);

// Whether a dtype has the same form in memory and in a register.
constexpr bool same_form(DType storage, DType lane) {
  return storage == lane && storage != DType::boolean;
}

// The lanes [first, last) of a run of n at which all ranges of the access hold. values[f] is
// function f at lane 0, steps[f] its step.
struct LaneRange {
  std::int64_t first, last;
};
LaneRange valid_lanes_slow(const Access& access, const std::int64_t* values,
                           const std::int64_t* steps, std::int64_t n);
inline LaneRange valid_lanes(const Access& access, const std::int64_t* values,
                             const std::int64_t* steps, std::int64_t n) {
  // The common case first: a run lies inside if both of its ends do.
  bool inside = true, constant = true;
  for (std::size_t f = 1; f < access.functions(); ++f) {
    const std::int64_t first = values[f], last = first + (n - 1) * steps[f];
    inside = inside && first >= access.low[f] && first < access.high[f] && last >= access.low[f] &&
             last < access.high[f];
    constant = constant && steps[f] == 0;
  }
  if (inside) return {0, n};
  if (constant) return {0, 0};
  return valid_lanes_slow(access, values, steps, n);
}

// Transposes a tile of 4- or 8-byte elements: out[row * pitch + column] = in[row + column * step].
void copy_transposed(std::byte* out, std::int64_t pitch, const std::byte* in, std::int64_t step,
                     std::int64_t rows, std::int64_t columns, std::int64_t bytes);

// lane i = value + i * step in dtype
void fill_affine(std::byte* out, DType dtype, std::int64_t value, std::int64_t step,
                 std::int64_t n);

}  // namespace fluxion::cpu_backend
