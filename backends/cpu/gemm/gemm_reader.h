// An operand of a contraction as its kernels read it: strips that lie in memory as they want them,
// or packed copies of others.
#pragma once

#include <cstdint>
#include <utility>

#include "backends/cpu/gemm/gemm_blocking.h"
#include "backends/cpu/gemm/gemm_kernel.h"
#include "backends/cpu/gemm/gemm_operand.h"
#include "backends/cpu/tape/tape_kernel.h"

namespace fluxion::cpu_backend {

// Part of an operand: strip element i, inner position p at data[i * strip + p * inner]. Of an
// operand in place whose inner axis is in stretches, at data[i * strip + stretches->offset(p)], p
// counted from the axis' beginning.
template <class T>
struct GemmStripView {
  const T* data;
  std::int64_t strip, inner;
  const GemmAxis* stretches = nullptr;
};

// Neighbouring strips of lhs that pass a strip of rhs together.
struct GemmGroup {
  std::int64_t row = 0, rows = 0, strips = 0;
  std::int64_t heights[gemm_max_group];  // of the first `strips`
};

// For accumulators of type T. Strip elements are rows of lhs, or columns of rhs.
template <class T>
class GemmReader {
 public:
  explicit GemmReader(GemmOperand operand)
      : kernels_(&gemm_kernels<T>()), operand_(std::move(operand)) {}

  const GemmAxis& batch() const { return operand_.batch; }
  const GemmAxis& strips() const { return operand_.strips; }
  const GemmAxis& inner() const { return operand_.inner; }

  // Whether its elements are such as the kernel multiplies.
  bool is_native() const { return operand_.dtype == dtype_of<T>; }
  // Of such: the element of a batch item that lies `at` elements after its first one.
  const T* native(const CallMemory& memory, std::int64_t batch, std::int64_t at) const {
    return reinterpret_cast<const T*>(element(memory, batch, at));
  }

  // Copies strip elements [begin, begin + width) x inner positions [inner_begin, inner_end) to
  // [inner][to_inner], converted to T.
  void pack(const CallMemory& memory, std::int64_t batch, std::int64_t begin, std::int64_t width,
            std::int64_t inner_begin, std::int64_t inner_end, T* to, std::int64_t to_inner) const;

  // Asks the memory for the same elements, where strips are contiguous.
  void prefetch(const CallMemory& memory, std::int64_t batch, std::int64_t begin,
                std::int64_t width, std::int64_t inner_begin, std::int64_t inner_end) const;

  // As lhs: the height of the strip that begins with `row`. Strips don't reach from one stretch of
  // rows into the next where that would keep them from being read in place or packed whole vectors
  // at a time, and the heights within a stretch differ by one row at most.
  std::int64_t strip_height(std::int64_t row, std::int64_t row_end) const;
  // In how many segments a strip of lhs comes, at most, for a block of the inner axis.
  std::int64_t segments(std::int64_t block_inner) const;

  // As lhs: the strips of a group for inner positions [inner_begin, inner_end), in the operand
  // itself where the kernel can read them there, else packed. Strip s has room at
  // packed[s * packed_strip], in rows of `width`. `columns`: of rhs, that the strips pass by.
  struct Part {
    const GemmGroup& rows;
    std::int64_t batch, inner_begin, inner_end, columns;
    T* packed;
    std::int64_t packed_strip, width;
  };
  void find_strips(const CallMemory& memory, const Part& part, GemmStripView<T>* strips) const;

 private:
  const std::byte* element(const CallMemory& memory, std::int64_t batch, std::int64_t at) const {
    return memory.buffers[static_cast<std::size_t>(operand_.buffer)] +
           (operand_.offset + operand_.batch.offset(batch) + at) *
               static_cast<std::int64_t>(size_of(operand_.dtype));
  }
  bool has_long_rows() const;
  bool by_stretches() const;

  const GemmKernels<T>* kernels_;
  GemmOperand operand_;
};

}  // namespace fluxion::cpu_backend
