// The passes of attention and its derivatives, and the tile shapes with which they run.
//
// Each pass computes rows of its outputs from all columns (keys, or queries), block by block:
//
//   sums over features      score = row operand x column operand, and a second such matrix
//   for each element        one or two weights
//   sums over columns       output += weights x column operand
//
//   pass            rows     score  second matrix    weights             outputs
//   forward         queries  q k'                    p                   y = p v
//   dual            queries  q k'   dq k' + q dk'    p, t = p (second - slope)  y, dy = t v + p dv
//   query gradient  queries  q k'   u v'             p, t                p k, t k
//   key gradient    keys     k q'   v u'             g, p                dk = g q, dv = p u
//
// The slope of a query is the second element at its largest score: a constant may be added to a row
// of the second matrix, and with this one the key that takes nearly all weight adds exactly 0. The
// query gradient is dq = t k - delta p k with delta = sum t - cotangent of lse. It leaves lse,
// slope and delta to the key gradient, whose g = p (second - slope - delta).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backends/vulkan/kernel.h"
#include "backends/vulkan/kernels/tile_product.h"

namespace fluxion::vulkan_backend {

enum class AttentionPass : std::uint8_t { forward, dual, query_gradient, key_gradient };

// What a pass multiplies, by the numbers of the op's operands and outputs.
struct AttentionProducts {
  std::string name;
  std::vector<std::size_t> row_operands, column_operands;
  std::vector<TileTerm> score_terms;  // result 0: the score, 1: the second matrix
  std::size_t weights = 1;
  std::vector<std::size_t> summed_operands;
  std::vector<TileTerm> output_terms;  // lhs: number of the weight
  std::vector<std::size_t> outputs;    // not_stored: a sum that another output is made of

  static constexpr std::size_t not_stored = ~std::size_t{0};
  std::size_t matrices() const { return score_terms.size() > 1 ? 2 : 1; }
};
const AttentionProducts& products_of(AttentionPass pass);
// Whether the softmax is found on the way, instead of being given by lse; and with a second matrix.
constexpr bool finds_softmax(AttentionPass pass) { return pass != AttentionPass::key_gradient; }
constexpr bool finds_slope(AttentionPass pass) {
  return finds_softmax(pass) && pass != AttentionPass::forward;
}

// A workgroup computes `rows` rows, from blocks of `columns` columns; an invocation thread_rows x 4
// of the scores. All are multiples of 4.
struct AttentionTile {
  std::uint32_t rows = 32, columns = 32, thread_rows = 4;
  std::uint32_t feature_depth = 16;  // features of a step of the scores
  std::uint32_t column_depth = 16;   // columns of a step of the outputs

  std::uint32_t down() const { return rows / thread_rows; }
  std::uint32_t across() const { return columns / 4; }
  std::uint32_t invocations() const { return down() * across(); }
  // Groups of four features that an invocation sums.
  std::uint32_t feature_quads(std::int64_t features) const;
  std::uint32_t padded_features(std::int64_t features) const {
    return 4 * across() * feature_quads(features);
  }
  bool operator==(const AttentionTile&) const = default;
};
std::string to_string(const AttentionTile& tile);

// Where things lie in shared memory, in groups of four elements. The scores' tiles are at 0; the
// weights take their place.
struct AttentionMemory {
  std::uint32_t outputs = 0;  // the outputs' tiles, behind the weights
  std::uint32_t partial = 0;  // a value of each row and thread across
  std::uint32_t kept = 0;     // where there is a slope: it and the largest score of each row
  std::uint32_t total = 0;
  static AttentionMemory of(const AttentionTile& tile, AttentionPass pass, std::int64_t features);
  std::uint32_t bytes() const { return 16 * total; }
};

// Tiles that the device can run for heads of so many features.
std::vector<AttentionTile> attention_tiles(AttentionPass pass, std::int64_t features,
                                           const ShaderTarget& target);

struct AttentionProblem {
  std::int64_t batch = 1, rows = 1, columns = 1, features = 1;
};
// The best of them; empty if there is none.
std::optional<AttentionTile> choose_attention_tile(AttentionPass pass,
                                                   const AttentionProblem& problem,
                                                   const ShaderTarget& target);

}  // namespace fluxion::vulkan_backend
