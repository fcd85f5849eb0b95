#include "backends/cpu/gemm_plan.h"

#include <algorithm>

namespace fluxion::cpu_backend {

namespace {

// Lengths along the inner axis are in bytes of one row, so that f64 takes half the elements of f32.
constexpr std::int64_t max_block_inner_bytes = 1536;           // a strip of lhs stays in the first-level cache
constexpr std::int64_t rhs_block_bytes = 384 * 1024;           // of rhs, in half of the second-level cache
constexpr std::int64_t resident_bytes = 256 * 1024;            // of results that wait for the epilogue
constexpr std::int64_t shared_rhs_bytes = 64 * 1024 * 1024;    // of rhs packed at a time
constexpr std::int64_t multiplications_per_slot = 512 * 1024;  // some 5 microseconds, what it costs to wake a thread

// Small results with a long inner axis - gradients of weights - have too few tiles for many threads.
constexpr std::int64_t chunked_results = 256 * 256, min_chunk_inner = 1024, max_chunks = 16;

}  // namespace

GemmPlan plan_gemm(const GemmProblem& p, int threads) {
  GemmPlan plan{};
  plan.chunks = p.batch * p.m * p.n <= chunked_results ? std::clamp<std::int64_t>(p.k / min_chunk_inner, 1, max_chunks) : 1;
  plan.chunk_inner = plan.chunks == 1 ? p.k : round_up(ceil_div(p.k, plan.chunks), 8);
  plan.chunks = std::max<std::int64_t>(1, ceil_div(p.k, std::max<std::int64_t>(1, plan.chunk_inner)));
  const std::int64_t max_block_inner = max_block_inner_bytes / p.element_bytes;
  const std::int64_t inner_blocks = std::max<std::int64_t>(1, ceil_div(plan.chunk_inner, max_block_inner));
  plan.block_inner = inner_blocks == 1 ? plan.chunk_inner : round_up(ceil_div(plan.chunk_inner, inner_blocks), 8);

  const double multiplications = static_cast<double>(p.batch) * static_cast<double>(p.m) * static_cast<double>(p.n) *
                                 static_cast<double>(std::max<std::int64_t>(p.k, 1)) * static_cast<double>(std::max<std::int64_t>(p.terms, 1));
  plan.slots = std::clamp<std::int64_t>(static_cast<std::int64_t>(std::min(multiplications / multiplications_per_slot, 1e6)), 1, threads);

  const std::int64_t rhs_operands = std::max<std::int64_t>(1, p.rhs_operands);
  const std::int64_t column_bytes = std::max<std::int64_t>(1, plan.block_inner) * p.element_bytes * rhs_operands;
  const std::int64_t max_columns = std::max(p.tile_columns, rhs_block_bytes / column_bytes / p.tile_columns * p.tile_columns);
  plan.block_columns = round_up(ceil_div(p.n, ceil_div(p.n, max_columns)), p.tile_columns);
  plan.block_rows = p.m;
  plan.panel_columns = plan.block_columns;

  // Rows of results that must stay with the task until the inner axis is done: one strip, or all of a block's.
  const bool waits = p.epilogue && plan.chunks == 1;
  const std::int64_t row_bytes = plan.block_columns * p.element_bytes * p.results;
  const std::int64_t max_rows =
      inner_blocks == 1 ? p.m : std::max(p.tile_rows, resident_bytes / row_bytes / p.tile_rows * p.tile_rows);

  const std::int64_t items = p.batch * plan.chunks;
  const std::int64_t column_blocks = ceil_div(p.n, plan.block_columns);
  const bool enough_items = plan.slots == 1 || items * column_blocks >= 2 * plan.slots;
  if (p.rhs_readable) {
    plan.rhs = RhsSource::in_place;
    plan.block_rows = std::min(p.m, max_rows);
    if (!enough_items) {
      const std::int64_t wanted = ceil_div(2 * plan.slots, items);
      plan.block_columns = std::max(p.tile_columns, round_up(ceil_div(p.n, wanted), p.tile_columns));
    }
  } else if (enough_items && p.m <= max_rows && !(p.rhs_broadcast && p.batch > 1)) {
    plan.rhs = RhsSource::task;
  } else {
    plan.rhs = RhsSource::shared;
    const std::int64_t panel = shared_rhs_bytes / (std::max<std::int64_t>(1, p.k) * p.element_bytes * rhs_operands);
    plan.panel_columns = std::min(round_up(p.n, p.tile_columns), std::max(plan.block_columns, panel / plan.block_columns * plan.block_columns));
    const std::int64_t wanted = ceil_div(4 * plan.slots, items * ceil_div(p.n, plan.block_columns));
    const std::int64_t rows = round_up(ceil_div(p.m, wanted), p.tile_rows);
    plan.block_rows = std::clamp(rows, p.tile_rows, std::min(max_rows, 10 * p.tile_rows));
  }
  plan.resident_rows = !waits ? 0 : inner_blocks == 1 ? std::min(p.m, p.tile_rows) : plan.block_rows;
  return plan;
}

}  // namespace fluxion::cpu_backend
