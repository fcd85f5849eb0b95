#include "backends/cpu/gemm/gemm_blocking.h"

#include <algorithm>

namespace fluxion::cpu_backend {

namespace {

constexpr std::int64_t max_block_inner_bytes =
    1024;  // of one row of lhs: a strip of each operand stays in the first-level cache
constexpr std::int64_t group_bytes = 96 * 1024;  // of results that a group of strips leaves for the
                                                 // epilogue
constexpr std::int64_t rhs_block_bytes =
    384 * 1024;  // of rhs: well within the second-level cache, which operands in place use unevenly
constexpr std::int64_t first_level_rhs_bytes =
    16 * 1024;  // a block of rhs up to this stays in the first-level cache by itself
constexpr std::int64_t resident_bytes =
    256 * 1024;  // of results that wait for further blocks of the inner axis
constexpr std::int64_t resident_strip_bytes = 64 * 1024;  // of results that wait for the epilogue
constexpr std::int64_t max_task_strips =
    32;  // of lhs, which are read again for each block of columns
constexpr std::int64_t shared_rhs_bytes = 64 * 1024 * 1024;  // of rhs packed at a time
constexpr std::int64_t multiplications_per_slot =
    512 * 1024;  // some 5 microseconds, what it costs to wake a thread

// Small results with a long inner axis - gradients of weights - have too few tiles for many
// threads.
constexpr std::int64_t chunked_results = 256 * 256, min_chunk_inner = 1024, max_chunks = 16;

}  // namespace

std::int64_t max_block_inner(std::int64_t element_bytes) {
  return max_block_inner_bytes / element_bytes;
}

GemmBlocking choose_blocking(const GemmProblem& p, int threads) {
  GemmBlocking plan{};
  plan.chunks = p.batch * p.m * p.n <= chunked_results
                    ? std::clamp<std::int64_t>(p.k / min_chunk_inner, 1, max_chunks)
                    : 1;
  plan.chunk_inner = plan.chunks == 1 ? p.k : round_up(ceil_div(p.k, plan.chunks), 8);
  plan.chunks =
      std::max<std::int64_t>(1, ceil_div(p.k, std::max<std::int64_t>(1, plan.chunk_inner)));
  const std::int64_t max_block_inner = fluxion::cpu_backend::max_block_inner(p.element_bytes);
  const std::int64_t inner_blocks =
      std::max<std::int64_t>(1, ceil_div(plan.chunk_inner, max_block_inner));
  plan.block_inner =
      inner_blocks == 1 ? plan.chunk_inner : round_up(ceil_div(plan.chunk_inner, inner_blocks), 8);

  const double multiplications = static_cast<double>(p.batch) * static_cast<double>(p.m) *
                                 static_cast<double>(p.n) *
                                 static_cast<double>(std::max<std::int64_t>(p.k, 1)) *
                                 static_cast<double>(std::max<std::int64_t>(p.terms, 1));
  plan.slots = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(std::min(multiplications / multiplications_per_slot, 1e6)), 1,
      threads);

  // Columns: a block of rhs stays in the second-level cache, and a strip of results that waits for
  // the epilogue near the first.
  const std::int64_t rhs_operands = std::max<std::int64_t>(1, p.rhs_operands);
  const bool waits = p.epilogue && plan.chunks == 1;
  std::int64_t max_columns = rhs_block_bytes / (std::max<std::int64_t>(1, plan.block_inner) *
                                                p.element_bytes * rhs_operands);
  // Results that wait come in whole rows where possible, along which the epilogue runs best. A
  // block of rhs may then exceed the second-level cache: a group of strips shares what comes from
  // beyond.
  if (waits) {
    constexpr std::int64_t fewest_strips = 2;
    const std::int64_t column_bytes = p.tile_rows * p.element_bytes * p.results;
    max_columns = std::max(std::min(max_columns, resident_strip_bytes / column_bytes),
                           group_bytes / (fewest_strips * column_bytes));
  }
  max_columns = std::max(p.tile_columns, max_columns / p.tile_columns * p.tile_columns);
  plan.block_columns = round_up(ceil_div(p.n, ceil_div(p.n, max_columns)), p.tile_columns);

  // Rows: results of several blocks of the inner axis stay in the second-level cache, those that
  // wait for the epilogue with much else. Beyond that, as many as leave every slot some blocks.
  const std::int64_t row_bytes = plan.block_columns * p.element_bytes * p.results;
  const std::int64_t max_rows =
      inner_blocks == 1 ? p.m
                        : std::max(p.tile_rows, (waits ? group_bytes : resident_bytes) / row_bytes /
                                                    p.tile_rows * p.tile_rows);
  const std::int64_t items = p.batch * plan.chunks;
  const auto split_rows = [&](std::int64_t parts) {
    return std::min({p.m, max_rows, round_up(ceil_div(p.m, parts), p.tile_rows)});
  };
  const auto split_columns = [&](std::int64_t parts) {
    return std::min(plan.block_columns, round_up(ceil_div(p.n, parts), p.tile_columns));
  };
  const std::int64_t column_blocks = ceil_div(p.n, plan.block_columns);
  plan.block_rows =
      plan.slots == 1 ? split_rows(1) : split_rows(ceil_div(4 * plan.slots, items * column_blocks));
  const std::int64_t row_blocks = ceil_div(p.m, plan.block_rows);

  // Two blocks per slot, where whole columns of blocks are to be cut for it.
  const std::int64_t wanted_column_blocks =
      plan.slots == 1 ? column_blocks : ceil_div(2 * plan.slots, items);
  if (p.rhs_readable) {
    plan.rhs = RhsSource::in_place;
    plan.block_columns =
        split_columns(plan.slots == 1 ? 1 : ceil_div(2 * plan.slots, items * row_blocks));
  } else if (!(p.rhs_broadcast && p.batch > 1) && p.m <= max_rows &&
             (column_blocks >= wanted_column_blocks ||
              (p.m <= max_task_strips * p.tile_rows &&
               p.n >= 2 * wanted_column_blocks * p.tile_columns))) {
    // Each task packs the rhs of its own columns; all rows at once, so that nobody packs them
    // again.
    plan.rhs = RhsSource::task;
    plan.block_columns = split_columns(wanted_column_blocks);
    plan.block_rows = p.m;
  } else {
    plan.rhs = RhsSource::shared;
  }
  const auto panel = static_cast<std::int64_t>(
      static_cast<double>(shared_rhs_bytes) /
      (static_cast<double>(std::max<std::int64_t>(1, p.k)) * static_cast<double>(p.element_bytes) *
       static_cast<double>(rhs_operands)));
  plan.panel_columns =
      std::min(round_up(p.n, p.tile_columns),
               std::max(plan.block_columns, panel / plan.block_columns * plan.block_columns));
  if (plan.rhs != RhsSource::shared) plan.panel_columns = p.n;
  plan.group_strips =
      plan.block_inner * plan.block_columns * p.element_bytes <= first_level_rhs_bytes &&
              !(waits && plan.block_columns <= p.tile_columns)
          ? 1
          : std::min(gemm_max_group, ceil_div(plan.block_rows, p.tile_rows));
  if (waits)
    plan.group_strips = std::clamp<std::int64_t>(
        group_bytes / (p.tile_rows * plan.block_columns * p.element_bytes * p.results), 1,
        plan.group_strips);
  plan.resident_rows = !waits              ? 0
                       : inner_blocks == 1 ? std::min(p.m, p.tile_rows * plan.group_strips)
                                           : plan.block_rows;
  return plan;
}

}  // namespace fluxion::cpu_backend
