// BlockedTape: an expression tape prepared to run block by block.
//
// The iteration space is split into three nested groups of axes, batch > rows > columns, each
// numbered by one linear index. A block is a rectangle of rows x columns in one batch entry. A
// value has one of four shapes, by what it depends on: a scalar, one element per row, one per
// column, or the full block. So a bias is loaded once per block, a row statistic is spread along
// its row, and only what varies at every point is computed at every point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "backends/cpu/tape/affine_runs.h"
#include "backends/cpu/tape/tape_kernel.h"
#include "backends/cpu/tape/tape_lanes.h"
#include "backends/cpu/tape/tape_memory.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

// What a value depends on within a batch entry; a set of bits.
enum class BlockShape : std::uint8_t { scalar = 0, per_row = 1, per_column = 2, full = 3 };
constexpr bool has_rows(BlockShape shape) { return static_cast<int>(shape) & 1; }
constexpr bool has_columns(BlockShape shape) { return static_cast<int>(shape) & 2; }
constexpr BlockShape operator|(BlockShape a, BlockShape b) {
  return static_cast<BlockShape>(static_cast<int>(a) | static_cast<int>(b));
}

// The direction in which a BlockedTape reduces.
enum class ReduceAlong : std::uint8_t { nothing, columns, rows };
struct BlockedTapeOptions {
  AxisGroups groups;
  ReduceAlong reduce = ReduceAlong::nothing;
  // Leaves reductions as partial values for the caller to combine, and leaves out the stores that
  // depend on them.
  bool partial = false;
};

struct TapeBlock {
  std::int64_t batch = 0, row = 0, rows = 1, column = 0, columns = 0;
};

class BlockedTape {
 public:
  BlockedTape(const Tape& tape, const BlockedTapeOptions& options);

  std::int64_t batches() const { return batches_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  // The largest block that fits the scratch memory.
  std::int64_t block_rows() const { return block_rows_; }
  std::int64_t block_columns() const { return block_columns_; }
  std::size_t scratch_bytes() const { return scratch_bytes_; }
  // Four-byte lanes in a vector of the processor that this was made for.
  std::int64_t vector() const { return vector_; }

  // Prepares `scratch` (aligned to 64) for the blocks of one call. Once per call and scratch.
  void begin(const CallMemory& memory, std::byte* scratch) const;
  // Runs one block. results[r] holds TapeCode::result r for the block's columns (tapes of one row
  // only).
  void run(const TapeBlock& block, const CallMemory& memory, std::span<const void* const> results,
           std::byte* scratch) const;
  // With `partial`: the reductions in the tape's order; after run(), their partial values, one per
  // row (or column) of the block.
  struct Reduction {
    Op op;
    DType dtype;
    std::int32_t value;
  };
  const std::vector<Reduction>& reductions() const { return reductions_; }
  const std::byte* partial(std::size_t reduction, std::byte* scratch) const;

 private:
  struct Value {
    DType dtype = DType::f32;
    BlockShape shape = BlockShape::scalar;
    std::size_t offset = 0;  // of its register in the scratch memory
  };
  struct Step {
    TapeCode code = TapeCode::literal;
    bool fixed = false;  // the same in every block: run by begin()
    std::int32_t value = 0;
    std::int32_t second = -1;  // the other value that a pair of functions makes
    std::int32_t argument = 0;
    std::int32_t operand_count = 0;
    std::array<std::int32_t, max_chain_links + 1> operands{};
    std::array<bool, max_chain_links + 1> splat{};
    std::int32_t direct_store = -1;  // a store that the kernel may write itself
    LaneFunction function;           // of an `apply`
    ApplyKernel apply = nullptr;
    ChainKernel chain = nullptr;  // instead of `apply`, with a link per operand but the first
    std::array<ChainLink, max_chain_links> links{};
    PairKernel pair = nullptr;  // instead of `apply`
    ReduceKernel reduce = nullptr;
  };
  struct Load {
    std::int32_t buffer = 0;
    DType dtype = DType::f32;  // of the lanes
    std::int64_t element_bytes = 4;
    CopyIn copy = nullptr;
    Access access;
    bool direct = false;      // same form in memory and register, no ranges
    bool stored = false;      // its value is stored as it is
    bool transposed = false;  // direct, and contiguous down the columns instead of along the rows
  };
  struct Store {
    std::int32_t value = 0, buffer = 0;
    std::int64_t element_bytes = 4;
    CopyOut copy = nullptr;
    Access access;
    bool direct = false;  // a kernel may write it itself
    // Loads still needed at that step; their memory must not overlap the store's.
    std::vector<std::int32_t> late_loads;
  };
  struct Register {
    std::byte* data;
    std::int64_t row_step;
  };
  // The tables at the start of a scratch memory.
  struct Frame {
    Register* registers;          // by value
    std::uint8_t* load_in_place;  // by load: may be read where it lies
    std::uint8_t* store_in_place;
    std::uint8_t* written;  // by store: its block is already in the buffer
    std::byte* scratch;
  };

  BlockShape full_shape() const { return rows_ > 1 ? BlockShape::full : BlockShape::per_column; }
  std::int32_t spread_to(std::int32_t value, BlockShape shape);
  // Sets value_of[index], the number of the instruction's value.
  void add_instruction(const Tape& tape, std::size_t index, const BlockedTapeOptions& options,
                       std::vector<std::int32_t>& value_of);
  // Return the number of the value. `bell`: the instruction ends a bell curve and has that curve's
  // operand.
  std::int32_t add_apply(const TapeInstruction& instruction,
                         const std::vector<std::int32_t>& value_of, bool bell);
  std::int32_t add_reduction(const TapeInstruction& instruction, std::int32_t operand);
  void join_pairs();
  void join_chains();
  void find_direct_accesses();
  void place_registers();
  void choose_block(std::int64_t bytes_per_lane);
  std::int64_t padded(std::int64_t count) const {
    return (count + vector_ - 1) / vector_ * vector_;
  }
  std::int64_t lanes(BlockShape shape) const;

  Frame frame(std::byte* scratch) const;
  void run_step(const Step& step, const TapeBlock& block, const CallMemory& memory,
                std::span<const void* const> results, const Frame& frame) const;
  Register destination(const Step& step, const TapeBlock& block, const CallMemory& memory,
                       const Frame& frame) const;
  void load(const Step& step, const TapeBlock& block, const CallMemory& memory,
            const Frame& frame) const;
  void fill(const Step& step, const TapeBlock& block, const Frame& frame) const;
  void apply(const Step& step, const TapeBlock& block, const CallMemory& memory,
             const Frame& frame) const;
  void reduce(const Step& step, const TapeBlock& block, const Frame& frame) const;
  void store(const Store& store, const TapeBlock& block, const CallMemory& memory,
             const Frame& frame) const;
  // Where the rectangle lies if each of its rows is contiguous and they are evenly spaced.
  struct Place {
    std::int64_t offset, row_step;  // in elements
  };
  std::optional<Place> rectangle(const Access& access, BlockShape shape,
                                 const TapeBlock& block) const;

  std::int64_t batches_ = 1, rows_ = 1, columns_ = 1;
  std::int64_t block_rows_ = 1, block_columns_ = 1, vector_ = 1;
  std::size_t scratch_bytes_ = 0;
  ReduceAlong reduce_ = ReduceAlong::nothing;
  bool partial_ = false;
  std::vector<Value> values_;
  std::vector<Step> steps_;
  std::vector<Load> loads_;
  std::vector<Access> indices_, ranges_;
  std::vector<Store> stores_;
  std::vector<Reduction> reductions_;
};

}  // namespace fluxion::cpu_backend
