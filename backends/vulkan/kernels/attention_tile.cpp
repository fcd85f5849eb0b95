#include "backends/vulkan/kernels/attention_tile.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "backends/vulkan/kernels/attention.h"
#include "engine/divide.h"

namespace fluxion::vulkan_backend {

namespace {

// Rows, columns, rows of an invocation. Large ones first: of equal cost, the first is taken.
constexpr std::array candidates{
    AttentionTile{64, 64, 8}, AttentionTile{64, 64, 4}, AttentionTile{64, 32, 4},
    AttentionTile{32, 64, 4}, AttentionTile{32, 32, 4}, AttentionTile{16, 64, 4},
    AttentionTile{32, 16, 4},
};
constexpr std::array<std::uint32_t, 3> depths{16, 8, 4};

// A model of a device, as that of products (gemm_tile.cpp): time is that of a multiply-add.
constexpr double attention_group_overhead = 2000;
constexpr double attention_step_overhead = 80;  // barriers and addresses
constexpr double weight_cost = 30;              // an exponential and what surrounds it
constexpr std::uint32_t most_sums = 160;        // of an invocation, in registers at all
// Of a SIMD of 32 lanes, and of four of them; what an invocation needs beside its sums.
constexpr double simd_registers = 1024, shared_memory = 131072, other_registers = 80;
constexpr double most_registers = 150;  // beyond, a driver may spill

double whole(std::int64_t a, std::uint32_t b) { return static_cast<double>(ceil_div(a, b)); }

std::uint32_t rounded_up(std::int64_t number, std::uint32_t multiple) {
  return static_cast<std::uint32_t>(round_up(number, multiple));
}

std::uint32_t accumulators(const AttentionTile& tile, const AttentionProducts& products,
                           std::int64_t features) {
  return tile.thread_rows * 4 *
         (static_cast<std::uint32_t>(products.matrices()) +
          tile.feature_quads(features) * static_cast<std::uint32_t>(products.outputs.size()));
}

double attention_cost(const AttentionTile& tile, AttentionPass pass,
                      const AttentionProblem& problem, const ShaderTarget& target) {
  const AttentionProducts& products = products_of(pass);
  const auto number = [](auto x) { return static_cast<double>(x); };
  const double rows = tile.thread_rows, invocations = tile.invocations();
  const double features = rounded_up(problem.features, tile.feature_depth),
               padded = tile.padded_features(problem.features),
               quads = tile.feature_quads(problem.features);
  const double tiles = number(products.row_operands.size()) * tile.rows +
                       number(products.column_operands.size()) * tile.columns;
  const double scores = features * (4 * rows * number(products.score_terms.size()) +
                                    (rows * number(products.row_operands.size()) +
                                     4 * number(products.column_operands.size())) /
                                        2) +
                        4 * features * tiles / invocations +
                        attention_step_overhead * features / tile.feature_depth;
  const double weights = 4 * rows * weight_cost +
                         (finds_softmax(pass) ? tile.across() * rows * 1.5 : 0) +
                         (finds_slope(pass) ? tile.across() * rows * 1.5 : 0);
  const double outputs =
      number(tile.columns) *
          (4 * rows * quads * number(products.output_terms.size()) +
           (rows * number(products.weights) + 4 * quads * number(products.summed_operands.size())) /
               2) +
      4 * tile.columns * padded * number(products.summed_operands.size()) / invocations +
      attention_step_overhead * tile.columns / tile.column_depth;
  // Subgroups that a SIMD can hold, by registers and by shared memory: fewer hide less latency.
  const double fetched =
      padded * tile.column_depth * number(products.summed_operands.size()) / invocations;
  const double registers =
      accumulators(tile, products, problem.features) + fetched + other_registers;
  const double memory = AttentionMemory::of(tile, pass, problem.features).bytes();
  const double subgroups =
      std::min(simd_registers / registers, std::floor(shared_memory / memory) * invocations / 128);
  const double hidden =
      std::min(1.0, 0.5 + subgroups / 16) / (registers > most_registers ? 1.5 : 1.0);
  const double at_once = std::max(1.0, target.lanes * hidden / invocations);
  const double groups = whole(problem.rows, tile.rows) * number(problem.batch);
  const double rounds = std::max(1.0, groups / at_once);
  return rounds * (whole(problem.columns, tile.columns) * (scores + weights + outputs) +
                   attention_group_overhead);
}

}  // namespace

const AttentionProducts& products_of(AttentionPass pass) {
  // attention: q, k, v; attention_dual: q, k, v, dq, dk, dv; attention_backward: q, k, v, u, the
  // cotangent of lse.
  static const std::array<AttentionProducts, 4> all{
      AttentionProducts{"attention", {0}, {1}, {{0, 0, 0}}, 1, {2}, {{0, 0, 0}}, {0}},
      AttentionProducts{"attention dual",
                        {0, 3},
                        {1, 4},
                        {{0, 0, 0}, {1, 0, 1}, {0, 1, 1}},
                        2,
                        {2, 5},
                        {{0, 0, 0}, {1, 0, 1}, {0, 1, 1}},
                        {0, 2}},
      AttentionProducts{"attention dq",
                        {0, 3},
                        {1, 2},
                        {{0, 0, 0}, {1, 1, 1}},
                        2,
                        {1},
                        {{0, 0, 0}, {1, 0, 1}},
                        {AttentionProducts::not_stored, 0}},
      AttentionProducts{"attention dk dv",
                        {1, 2},
                        {0, 3},
                        {{0, 0, 0}, {1, 1, 1}},
                        2,
                        {0, 3},
                        {{0, 0, 0}, {1, 1, 1}},
                        {1, 2}},
  };
  return all[static_cast<std::size_t>(pass)];
}

std::uint32_t AttentionTile::feature_quads(std::int64_t features) const {
  return rounded_up(features, 4 * across()) / (4 * across());
}

std::string to_string(const AttentionTile& tile) {
  return std::to_string(tile.rows) + "x" + std::to_string(tile.columns) + "/" +
         std::to_string(tile.thread_rows) + "x4";
}

AttentionMemory AttentionMemory::of(const AttentionTile& tile, AttentionPass pass,
                                    std::int64_t features) {
  const AttentionProducts& products = products_of(pass);
  const auto count = [](const auto& list) { return static_cast<std::uint32_t>(list.size()); };
  const std::uint32_t score_tiles = tile.feature_depth / 4 *
                                    (count(products.row_operands) * tile_pitch(tile.rows) +
                                     count(products.column_operands) * tile_pitch(tile.columns));
  const std::uint32_t output_tiles = tile.column_depth / 4 * count(products.summed_operands) *
                                     tile_pitch(tile.padded_features(features));
  AttentionMemory memory;
  memory.outputs =
      static_cast<std::uint32_t>(products.weights) * tile.columns * (tile_pitch(tile.rows) / 4);
  memory.partial = std::max(score_tiles, memory.outputs + output_tiles);
  memory.kept = memory.partial + (finds_softmax(pass) ? tile.across() * (tile.rows / 4) : 0);
  memory.total = memory.kept + (finds_slope(pass) ? 2 * (tile.rows / 4) : 0);
  return memory;
}

std::vector<AttentionTile> attention_tiles(AttentionPass pass, std::int64_t features,
                                           const ShaderTarget& target) {
  std::vector<AttentionTile> tiles;
  for (AttentionTile tile : candidates) {
    if (tile.invocations() > std::min(target.max_invocations, target.max_local_size[0])) continue;
    // The deepest steps that fit. Steps along features need not be deeper than there are features.
    const auto fits = [&] {
      return AttentionMemory::of(tile, pass, features).bytes() <= target.shared_bytes;
    };
    // Four operands at a time take too many registers in deep steps.
    const AttentionProducts& products = products_of(pass);
    const bool many = products.row_operands.size() + products.column_operands.size() > 2;
    const std::uint32_t deepest = std::min(many ? 8u : 16u, std::max(rounded_up(features, 4), 4u));
    for (const std::uint32_t depth : depths) {
      tile.feature_depth = std::min(depth, deepest);
      tile.column_depth = depth;
      if (fits()) break;
    }
    if (fits() && accumulators(tile, products, features) <= most_sums) tiles.push_back(tile);
  }
  return tiles;
}

std::optional<AttentionTile> choose_attention_tile(AttentionPass pass,
                                                   const AttentionProblem& problem,
                                                   const ShaderTarget& target) {
  const std::vector<AttentionTile> tiles = attention_tiles(pass, problem.features, target);
  // The smallest one has the shortest code.
  if (target.short_code && !tiles.empty()) return tiles.back();
  std::optional<AttentionTile> best;
  double least = std::numeric_limits<double>::infinity();
  for (const AttentionTile& tile : tiles) {
    const double time = attention_cost(tile, pass, problem, target);
    if (time < least) least = time, best = tile;
  }
  return best;
}

std::int64_t max_attention_head(const ShaderTarget& target) {
  for (const std::int64_t features : {256, 192, 128, 96, 64, 32, 16}) {
    const auto runs_pass = [&](AttentionPass pass) {
      return !attention_tiles(pass, features, target).empty();
    };
    if (runs_pass(AttentionPass::forward) && runs_pass(AttentionPass::dual) &&
        runs_pass(AttentionPass::query_gradient) && runs_pass(AttentionPass::key_gradient))
      return features;
  }
  return 0;
}

}  // namespace fluxion::vulkan_backend
