// Tile shapes of matrix products, as data: the candidates, which of them a device can run, and the
// one that a product should use.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "backends/vulkan/kernel.h"

namespace fluxion::vulkan_backend {

// A workgroup computes `rows` x `columns` elements of the results, `depth` products of each at a
// time from shared memory. An invocation computes thread_rows x thread_columns of them in
// registers. All but `unroll` are multiples of 4; `unroll`, the products of a turn of the innermost
// loop, divides `depth`.
struct GemmTile {
  std::uint32_t rows = 64, columns = 64, depth = 16;
  std::uint32_t thread_rows = 8, thread_columns = 4;
  std::uint32_t unroll = 4;
  // Copies of a tile in shared memory: with two, a step needs one barrier instead of two.
  std::uint32_t stages = 1;

  std::uint32_t invocations() const { return rows / thread_rows * (columns / thread_columns); }
  bool operator==(const GemmTile&) const = default;
};
std::string to_string(const GemmTile& tile);  // "128x64x16/8x8"

std::span<const GemmTile> gemm_tiles();

// What the choice depends on.
struct GemmProblem {
  std::int64_t batch = 1, m = 1, n = 1, k = 1;
  std::int32_t results = 1;
  // Distinct operands on each side of the terms that can share some.
  std::size_t lhs = 1, rhs = 1;
  std::size_t terms = 1;
};

// Shared memory for tiles of so many operands.
std::uint32_t tile_bytes(const GemmTile& tile, std::size_t lhs, std::size_t rhs);
// Shared memory in which an invocation keeps one row of its part of the results while the epilogue
// runs over it.
std::uint32_t epilogue_bytes(const GemmTile& tile, std::int32_t results);
// Whether the device can run workgroups of this shape for a kernel with so many results.
bool runs(const GemmTile& tile, std::int32_t results, const ShaderTarget& target);

// The tile as this device should run it; nothing if it can't, or if its code would be too long.
std::optional<GemmTile> suited(GemmTile tile, std::int32_t results, const ShaderTarget& target);

// A tile, and how many parts the sums are split into, so that there is work for the whole device.
struct GemmChoice {
  GemmTile tile;
  std::int64_t splits = 1;
  bool operator==(const GemmChoice&) const = default;
};
// What was measured (ShaderTarget::tile_factors) never changes the order of sums, so that results
// are the same, bit for bit, whichever tile is found to be the fastest.
GemmChoice choose_tile(const GemmProblem& problem, const ShaderTarget& target);
// What the model says of one tile, for comparison alone.
double modelled_cost(const GemmProblem& problem, const GemmTile& tile, const ShaderTarget& target);

}  // namespace fluxion::vulkan_backend
