// Vector kernels of the tape interpreter, chosen at run time for the processor's instruction set.
//
// A register holds four-byte lanes (f32, i32, u32, booleans as all bits set or none) or eight-byte
// lanes (f64). Registers are padded to a multiple of vector_lanes(), and kernels process such
// multiples, so that none needs a tail loop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/graph/op.h"

namespace fluxion::cpu_backend {

// An operand over a block of rows x columns. Row r starts at data + r * row_step (in bytes); a
// splat has one value per row.
struct Lanes {
  const std::byte* data = nullptr;
  std::int64_t row_step = 0;
  bool splat = false;
};

// out[r, c] = f(in[0][r, c], ..), rows `out_step` bytes apart. An operand may be the output itself.
using ApplyKernel = void (*)(std::byte* out, std::int64_t out_step, const Lanes* in,
                             std::int64_t rows, std::int64_t columns);

// A chain: v = in[0]; then for each link k, v = v (link) in[k + 1]. Gives the same bits as its ops
// one by one.
// v + x, v - x, x - v, v * x, strong_mul(v, x).
enum class ChainLink : std::uint8_t { add, sub, sub_from, mul, strong_mul };
inline constexpr std::int64_t max_chain_links = 7;
using ChainKernel = void (*)(std::byte* out, std::int64_t out_step, const Lanes* in,
                             const ChainLink* links, std::int64_t count, std::int64_t rows,
                             std::int64_t columns);

// Two functions of one operand in one pass, for functions that share most of their work.
using PairKernel = void (*)(std::byte* first, std::int64_t first_step, std::byte* second,
                            std::int64_t second_step, const Lanes& in, std::int64_t rows,
                            std::int64_t columns);

// Row kernels: out[r] = reduction of in[r, 0..columns). Any number of columns; a row is readable up
// to the next multiple of vector_lanes(). Column kernels: out[c] = reduction of in[0..rows, c];
// columns are a multiple of vector_lanes(). No splats.
using ReduceKernel = void (*)(std::byte* out, const Lanes& in, std::int64_t rows,
                              std::int64_t columns);

// Four-byte lanes in a vector. f64 kernels take two vectors for as many lanes.
std::int64_t vector_lanes();
// "AVX2", ...
std::string vector_target();

inline constexpr std::int64_t largest_vector_bytes = 64;

// The kernel of an op of class elementwise, or nullptr. `operand` is the dtype of the last operand,
// `result` that of the result.
ApplyKernel find_apply_kernel(Op op, DType operand, DType result);
// Copies, spreading splats.
ApplyKernel find_spread_kernel(DType dtype);
// sum, max or min, or nullptr.
ReduceKernel find_row_kernel(Op op, DType dtype);
ReduceKernel find_column_kernel(Op op, DType dtype);

// A function of one operand: an op's, or the bell curve exp(-x^2), which erf and erfc have for
// slope.
struct LaneFunction {
  Op op{};  // of the bell curve exp, its last
  bool bell = false;
  bool operator==(const LaneFunction&) const = default;
};
// exp(-(x x)) with the bits of its ops one by one; f32 and f64, else nullptr.
ApplyKernel find_bell_kernel(DType dtype);

// sigmoid and sigmoid_slope, which share an exponential and a division; erfc and the bell curve,
// which share an exponential; else nullptr. Gives the same bits as either alone.
PairKernel find_pair_kernel(LaneFunction first, LaneFunction second, DType dtype);

// f32 and f64; else nullptr (tape_lanes_chain.cpp).
ChainKernel find_chain_kernel(DType dtype);

// The transcendental part of find_apply_kernel (tape_lanes_math.cpp), a file of its own because
// Highway compiles slowly.
ApplyKernel find_math_kernel(Op op, DType dtype);

// Size of a register's lane.
constexpr std::int64_t lane_bytes(DType dtype) { return dtype == DType::f64 ? 8 : 4; }

}  // namespace fluxion::cpu_backend
