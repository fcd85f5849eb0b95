// How a contraction is cut into blocks and tasks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/divide.h"

namespace fluxion::cpu_backend {

inline constexpr std::int64_t gemm_max_group = 16;

// What the cut depends on.
struct GemmProblem {
  std::int64_t batch, m, n, k;
  std::int64_t rhs_operands, results, terms;  // operands: distinct ones
  std::int64_t element_bytes;
  std::int64_t tile_rows, tile_columns;  // of the register tile
  bool epilogue;       // results run through a tape instead of being written in place
  bool rhs_broadcast;  // every rhs is the same for all batch items
  bool rhs_readable;   // every rhs can be read by the kernel where it lies
};

// Where the kernel finds rhs.
enum class RhsSource : std::uint8_t {
  in_place,  // in the operand itself; only the last, partial strip is packed
  task,      // packed by each task for itself, block by block
  shared,    // packed once, before the products, for all tasks
};

struct GemmBlocking {
  // Summation order: the inner axis is cut into chunks, summed apart and added up in order, and
  // each of them into blocks, which follow one another in the same sum. Both depend on the
  // problem's sizes alone, so neither threads nor instruction set change the order.
  std::int64_t chunks, chunk_inner, block_inner;

  RhsSource rhs;
  std::int64_t block_rows,
      block_columns;  // of a task's block of the result; columns are a multiple of the tile's
  std::int64_t panel_columns;  // of the result, worked on at a time: as many as there is room to
                               // pack a shared rhs for
  std::int64_t slots;  // tasks that may run at the same time, each with scratch memory of its own
  std::int64_t group_strips;   // of lhs that pass a strip of rhs together; at most gemm_max_group
  std::int64_t resident_rows;  // rows of results that a task holds for the epilogue; 0: none
};

// The longest block of the inner axis.
std::int64_t max_block_inner(std::int64_t element_bytes);

GemmBlocking choose_blocking(const GemmProblem& problem, int threads);

}  // namespace fluxion::cpu_backend
