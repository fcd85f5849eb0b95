#include "backends/vulkan/kernels/gemm_tile.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "backends/vulkan/kernels/tile_product.h"

namespace fluxion::vulkan_backend {

namespace {

// rows, columns, depth, rows and columns of an invocation. Large ones first: of equal cost, the
// first is taken.
constexpr std::array tiles{
    GemmTile{128, 128, 16, 8, 8},  GemmTile{128, 64, 16, 8, 8},   GemmTile{64, 128, 16, 8, 8},
    GemmTile{64, 64, 16, 8, 8},    GemmTile{64, 64, 16, 8, 4},    GemmTile{64, 64, 16, 4, 8},
    GemmTile{64, 64, 16, 4, 4, 8}, GemmTile{32, 64, 16, 4, 4, 8}, GemmTile{64, 32, 16, 4, 4, 8},
    GemmTile{32, 32, 16, 4, 4, 8}, GemmTile{16, 64, 16, 4, 4, 8}, GemmTile{64, 16, 16, 4, 4, 8},
    GemmTile{4, 256, 8, 4, 4},     GemmTile{256, 4, 8, 4, 4},     GemmTile{64, 64, 8, 8, 4},
    GemmTile{64, 64, 8, 4, 8},     GemmTile{64, 64, 8, 4, 4},     GemmTile{32, 32, 8, 4, 4, 8},
};

// A model of a device; the measure is the time of one multiply-add of one invocation.
constexpr double group_overhead = 1500;        // start, first loads and stores of a workgroup
constexpr double step_overhead = 60;           // barriers and addresses of a step through `depth`
constexpr double split_element_cost = 12;      // to write one partial sum and to read it again
constexpr double split_kernel_cost = 8000;     // another dispatch
constexpr double simd_lane_registers = 1024;   // of 32 lanes
constexpr double address_registers = 28;       // addresses and places
constexpr double most_accumulators = 64;       // in registers beyond doubt
constexpr std::uint32_t short_code_sums = 16;  // of an invocation, where code must be short

double round_up_quotient(double a, double b) {
  return static_cast<double>(static_cast<std::int64_t>((a + b - 1) / b));
}

double cost(const GemmProblem& problem, const GemmTile& tile, std::int64_t splits,
            const ShaderTarget& target) {
  // Terms whose tiles don't fit together read their own.
  const bool shares = tile_bytes(tile, problem.lhs, problem.rhs) <= target.shared_bytes;
  const std::size_t lhs = shares ? problem.lhs : problem.terms,
                    rhs = shares ? problem.rhs : problem.terms;
  const double rows = tile.thread_rows, columns = tile.thread_columns;
  const auto number = [](auto x) { return static_cast<double>(x); };
  const double groups = round_up_quotient(number(problem.m), tile.rows) *
                        round_up_quotient(number(problem.n), tile.columns) *
                        number(problem.batch * splits);
  const double at_once = number(target.lanes) / tile.invocations();
  const double steps = round_up_quotient(number(problem.k) / number(splits), tile.depth);
  // Of one step of one invocation: multiply-adds, loads from shared memory, and its share of the
  // loads from memory.
  const double products = rows * columns * number(problem.terms);
  const double shared_loads = (rows * number(lhs) + columns * number(rhs)) / 2;
  const double loaded = (number(tile.rows) * number(lhs) + number(tile.columns) * number(rhs)) *
                        tile.depth / tile.invocations();
  const double step = tile.depth * (products + shared_loads) + 4 * loaded + step_overhead;
  // Registers of an invocation, and how many subgroups of a SIMD they leave room for: fewer than
  // eight hide less latency.
  const double sums = rows * columns * number(problem.results);
  const double registers =
      sums + rows * number(lhs) + columns * number(rhs) + loaded + address_registers;
  const double hidden = std::min(1.0, 0.5 + std::floor(simd_lane_registers / registers) / 16);
  const double spilled = sums > most_accumulators ? 4 : 1;
  double total = std::ceil(groups / at_once) * (steps * step * spilled / hidden + group_overhead);
  if (splits > 1) {
    const double elements =
        number(problem.batch) * number(problem.m) * number(problem.n) * number(problem.results);
    total +=
        split_kernel_cost + split_element_cost * elements * number(splits) / number(target.lanes);
  }
  return total;
}

// Whether both add up each result in the same order, where sums are split into the same parts.
bool same_order(const GemmProblem& problem, const GemmTile& a, const GemmTile& b,
                std::int64_t splits, const ShaderTarget& target) {
  // Parts are whole steps through `depth`.
  if (splits > 1 && a.depth != b.depth) return false;
  if (problem.terms <= static_cast<std::size_t>(problem.results)) return true;
  // Terms of one result take turns, in steps, as far as their tiles fit together.
  const auto together = [&](const GemmTile& tile) {
    return tile_bytes(tile, problem.lhs, problem.rhs) <= target.shared_bytes;
  };
  return a.depth == b.depth && a.unroll == b.unroll && together(a) && together(b);
}

}  // namespace

std::span<const GemmTile> gemm_tiles() { return tiles; }

std::string to_string(const GemmTile& tile) {
  const auto by = [](std::uint32_t a, std::uint32_t b) {
    return std::to_string(a) + "x" + std::to_string(b);
  };
  return by(tile.rows, tile.columns) + "x" + std::to_string(tile.depth) + "/" +
         by(tile.thread_rows, tile.thread_columns);
}

std::uint32_t tile_bytes(const GemmTile& tile, std::size_t lhs, std::size_t rhs) {
  return static_cast<std::uint32_t>((lhs * tile_pitch(tile.rows) + rhs * tile_pitch(tile.columns)) *
                                    tile.depth * tile.stages * sizeof(float));
}

std::uint32_t epilogue_bytes(const GemmTile& tile, std::int32_t results) {
  return static_cast<std::uint32_t>(static_cast<std::size_t>(results) * tile.thread_columns *
                                    tile.invocations() * sizeof(float));
}

bool runs(const GemmTile& tile, std::int32_t results, const ShaderTarget& target) {
  return tile.invocations() <= target.max_invocations &&
         tile.invocations() <= target.max_local_size[0] &&
         std::max(tile_bytes(tile, 1, 1), epilogue_bytes(tile, results)) <= target.shared_bytes;
}

std::optional<GemmTile> suited(GemmTile tile, std::int32_t results, const ShaderTarget& target) {
  if (!runs(tile, results, target)) return std::nullopt;
  if (!target.short_code) return tile;
  if (tile.thread_rows * tile.thread_columns > short_code_sums) return std::nullopt;
  tile.unroll = 1;
  return tile;
}

GemmChoice choose_tile(const GemmProblem& problem, const ShaderTarget& target) {
  constexpr std::int64_t most_splits = 64, least_split_products = 128;
  GemmChoice best;
  double least = std::numeric_limits<double>::infinity();
  for (const GemmTile& candidate : tiles) {
    const std::optional<GemmTile> tile = suited(candidate, problem.results, target);
    if (!tile) continue;
    for (std::int64_t splits = 1; splits <= most_splits; splits *= 2) {
      if (splits > 1 && problem.k < splits * least_split_products) break;
      const double time = cost(problem, *tile, splits, target);
      if (time < least) least = time, best = {*tile, splits};
    }
  }
  if (target.tile_factors.size() != tiles.size()) return best;
  const GemmTile modelled = best.tile;
  least = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const std::optional<GemmTile> tile = suited(tiles[i], problem.results, target);
    if (!tile || !(*tile == modelled || same_order(problem, *tile, modelled, best.splits, target)))
      continue;
    const double time = cost(problem, *tile, best.splits, target) * target.tile_factors[i];
    if (time < least) least = time, best.tile = *tile;
  }
  return best;
}

double modelled_cost(const GemmProblem& problem, const GemmTile& tile, const ShaderTarget& target) {
  return cost(problem, tile, 1, target);
}

}  // namespace fluxion::vulkan_backend
