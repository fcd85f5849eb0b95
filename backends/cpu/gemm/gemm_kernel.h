// The innermost part of a matrix product: a register tile of C, and the packing that feeds it.
// Written once with Highway and compiled for every instruction set; gemm_kernels() chooses at run
// time. Knows pointers and strides only.
#pragma once

#include <cstdint>

namespace fluxion::cpu_backend {

// One product along a stretch of an inner axis: A(i, p) = a[i * a_row + p * a_inner], B(p, j) = b[p
// * b_inner + j], p < inner.
template <class T>
struct GemmSegment {
  const T* a;
  std::int64_t a_row, a_inner;
  const T* b;
  std::int64_t b_inner;
  std::int64_t inner;
};

// C(i, j) = (accumulate ? C(i, j) : 0) + sum over segments s, sum over p < inner_s of A_s(i, p)
// B_s(p, j), summed in this order. Of B, whole vectors are read, so its rows must be readable up to
// a multiple of `lanes`; of C, only `columns` columns are touched. Any strides do, zero and
// negative ones too.
template <class T>
struct GemmTile {
  const GemmSegment<T>* segments;
  std::int64_t segment_count;
  T* c;
  std::int64_t c_row;
  std::int64_t columns;  // 1 ... max_vectors * lanes
  bool accumulate;
};

// Packing of a strip of `width` rows of A, or columns of B, along the inner axis: to[p * to_inner +
// j] = from[offsets[j] + p * inner_stride], converted to T. Offsets and strides count elements of
// the operand.
template <class T>
struct GemmStrip {
  const void* from;
  const std::int64_t* offsets;
  std::int64_t width;
  bool contiguous;  // offsets[j] == offsets[0] + j; only offsets[0] is read
  std::int64_t inner, inner_stride;
  T* to;
  std::int64_t to_inner;  // >= width rounded up to whole vectors; the columns from width up to
                          // there get finite or repeated values
};

// Packing of neighbouring strips of A whose rows are contiguous, as those of a transposed operand:
// strip s, of heights[s] rows, begins in `from` after those before it, and in `to` at s * to_strip:
// to[s * to_strip + p * to_inner + j], to_inner as above.
template <class T>
struct GemmStripGroup {
  const T* from;
  std::int64_t inner, inner_stride;
  const std::int64_t* heights;
  std::int64_t strips;
  T* to;
  std::int64_t to_strip, to_inner;
};

inline constexpr int gemm_max_rows = 16;
inline constexpr int gemm_max_vectors = 2;
template <class T>
inline constexpr int gemm_max_lanes = 64 / sizeof(T);

template <class T>
struct GemmKernels {
  using TileFunction = void (*)(const GemmTile<T>&);
  const char* target;  // instruction set
  int rows;            // height of the largest tile of two vectors in a row
  int narrow_rows;     // .. and of one vector, which wants more rows: each sum waits for the last
  int lanes;           // elements of a vector
  // tile[vectors - 1][rows - 1]
  TileFunction tile[gemm_max_vectors][gemm_max_rows];
  // By what the operand's elements are: T; BFloat16 and Float16, where T is float.
  using PackFunction = void (*)(const GemmStrip<T>&);
  PackFunction pack, pack_bf16, pack_f16;
  void (*pack_group)(const GemmStripGroup<T>&);
};

// The kernels of the best instruction set that this processor has. T: float, double.
template <class T>
const GemmKernels<T>& gemm_kernels();

}  // namespace fluxion::cpu_backend
