// What matrix products and attention are made of: tiles of operands, read through views into shared
// memory, and products of such tiles in registers.
//
// A shared tile holds `depth` rows of `strips` elements, four to an element of the array. A thread
// of a grid of `down` x `across` threads owns some rows and columns of the result in groups of four
// (quads): quad i of its rows is quad y + i * down of the tile, so that neighbours read neighbours.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "backends/vulkan/kernels/operand_view.h"
#include "backends/vulkan/spirv/module.h"

namespace fluxion::vulkan_backend {

// The offset of a position of an axis, as u32 (which wraps: strides may be negative).
spirv::Value axis_offset(const ViewAxis& axis, spirv::Value position);

// Elements of a buffer, kept as f32, bf16 or f16, as f32.
class FloatReader {
 public:
  FloatReader(spirv::Module& module, std::uint32_t binding, DType kept);
  spirv::Value load(spirv::Value address) const;
  // Elements 4 quad to 4 quad + 3, as a vector; and of 16-bit elements 8 eight to 8 eight + 7, as
  // two.
  spirv::Value load_quad(spirv::Value quad) const;
  std::array<spirv::Value, 2> load_eight(spirv::Value eight) const;

 private:
  // Four 16-bit elements from two words.
  spirv::Value quad_of(spirv::Value first, spirv::Value second) const;

  spirv::Module* module_;
  DType kept_;
  std::uint32_t binding_;
  spirv::Buffer elements_, quads_;
};

// Elements of a shared tile from one product to the next. The excess over its rows or columns
// spreads stores over the banks.
constexpr std::uint32_t tile_pitch(std::uint32_t strips) { return strips + 4; }

// Part of an array of F32x4 that holds a tile, from element `first` on.
struct SharedTile {
  spirv::SharedArray array;
  spirv::Value first;
  std::uint32_t pitch_quads = 0;  // from one product to the next
};

// Which tiles of an operand are read: `strips` x `depth` elements at a time.
struct TileRequest {
  OperandView view;
  std::uint32_t binding = 0;
  std::uint32_t strips = 0, depth = 0;

  bool eights = false;  // 16-bit elements are read eight at once

  // Whether they can be.
  bool may_take_eights() const;
  TileAccess access() const { return view.access(eights ? 8 : 4); }
  // Units that invocations read one by one: this many strips by so many inner elements.
  std::uint32_t strips_per_unit() const;
  std::uint32_t inner_per_unit() const;
  std::uint32_t quads_per_unit() const { return strips_per_unit() / 4 * inner_per_unit(); }
  std::uint32_t units() const { return strips / strips_per_unit() * (depth / inner_per_unit()); }
};

// Reads tiles of one operand, by the invocations from `first_thread` on. What lies beyond the
// operand is read as other elements of it along `strips`, and as 0 along `inner`, where a tile must
// begin inside.
class TileLoader {
 public:
  TileLoader(spirv::Module& module, const TileRequest& request, std::uint32_t first_thread);
  // Which strips come next: those from `first` on, a multiple of 4, in a batch entry.
  void start(spirv::Value batch, spirv::Value first_strip);
  // The part of this invocation of the tile from `first_inner` on, a multiple of `depth`: quads.
  std::vector<spirv::Value> fetch(spirv::Value first_inner) const;
  // Writes it; `guarded`: only the invocations that have a unit do.
  void store(const SharedTile& tile, std::span<const spirv::Value> fetched, bool guarded) const;

 private:
  struct Unit {
    spirv::Value quad, inner;  // in the tile: quad of strips, first inner element
    // Of strip j, without `inner` where it varies: offsets[j], or, if the strips of a quad are
    // evenly spaced, offsets[0] + shift + j * stride. The additions cost less than registers.
    std::array<spirv::Value, 4> offsets;
    std::int64_t shift = 0;
  };
  // Of inner element first + within of the tile.
  spirv::Value inner_offset(spirv::Value first, spirv::Value within) const;
  // Whether the strips of a quad are evenly spaced.
  bool even_quads() const { return view_.strips.run() % 4 == 0; }
  // Whether what all units read is evenly spaced, too.
  bool even_units() const;
  bool has_tail() const { return view_.inner.size % depth_ != 0; }

  spirv::Module* module_;
  OperandView view_;
  TileAccess access_;
  FloatReader reader_;
  bool eights_;
  std::uint32_t strips_, depth_, strips_per_unit_, inner_per_unit_, units_in_all_;
  bool inner_first_;  // neighbours among the invocations read neighbours along `inner`
  std::vector<Unit> units_;
};

// Reads the tiles of several operands, step by step. Operands of few units are read at the same
// time, each by some of the invocations: that takes fewer registers and instructions of each.
class TileSet {
 public:
  TileSet() = default;
  TileSet(spirv::Module& module, const std::vector<TileRequest>& requests);
  void start(std::size_t operand, spirv::Value batch, spirv::Value first_strip) {
    loaders_[operand].start(batch, first_strip);
  }
  // The part of this invocation of all tiles from `first_inner` on.
  std::vector<spirv::Value> fetch(spirv::Value first_inner) const;
  // Writes it to the operands' tiles.
  void store(std::span<const SharedTile> tiles, std::span<const spirv::Value> fetched) const;

 private:
  // Operands that are read at the same time.
  struct Round {
    std::vector<std::size_t> operands;
    std::uint32_t threads = 0;  // that they take
    std::uint32_t quads = 0;    // that an invocation fetches
  };
  // Emits body(operand) for each operand of a round, in the invocations that read it.
  void for_each_operand(const Round& round, bool strictly,
                        const std::function<void(std::size_t)>& body) const;

  spirv::Module* module_ = nullptr;
  std::vector<TileRequest> requests_;
  std::vector<TileLoader> loaders_;
  std::vector<Round> rounds_;
};

// The place of this invocation in the grid.
struct ThreadGrid {
  std::uint32_t down = 1, across = 1;
  spirv::Value y, x;

  static ThreadGrid of(spirv::Module& module, std::uint32_t down, std::uint32_t across);
};

// One product of tiles, added into accumulator `result`.
struct TileTerm {
  std::size_t lhs = 0, rhs = 0, result = 0;
};

// Adds lhs' rhs of each term over `depth` products. sums[r][i * columns + j] is element (i, j) of
// an invocation's part of result r, with 4 row_quads rows and 4 column_quads columns.
using Accumulators = std::vector<std::vector<spirv::Value>>;
struct RegisterShape {
  std::uint32_t row_quads = 1, column_quads = 1;
  std::uint32_t rows() const { return 4 * row_quads; }
  std::uint32_t columns() const { return 4 * column_quads; }
  std::uint32_t elements() const { return rows() * columns(); }
  // Of row or column i of an invocation: its place in the tile.
  spirv::Value row(const ThreadGrid& grid, std::uint32_t i) const;
  spirv::Value column(const ThreadGrid& grid, std::uint32_t j) const;
};
Accumulators zero_accumulators(spirv::Module& module, std::size_t results, RegisterShape shape);
Accumulators multiply_tiles(spirv::Module& module, std::span<const SharedTile> lhs,
                            std::span<const SharedTile> rhs, std::span<const TileTerm> terms,
                            const ThreadGrid& grid, RegisterShape shape, std::uint32_t depth,
                            std::uint32_t unroll, const Accumulators& sums);

// Accumulators as the values that a loop carries, and back.
std::vector<spirv::Value> flattened(const Accumulators& sums);
Accumulators unflattened(const std::vector<spirv::Value>& values, std::size_t results);

}  // namespace fluxion::vulkan_backend
