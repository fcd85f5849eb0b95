// Preparing a BlockedTape: the shapes of values, steps, registers. blocked_tape_run.cpp runs it.
#include "backends/cpu/tape/blocked_tape.h"

#include <algorithm>
#include <limits>

#include "backends/cpu/runtime/scratch.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"

namespace fluxion::cpu_backend {

namespace {

// All live registers of a block together stay inside a second-level cache of 256 KiB or more. Long
// blocks pay: each instruction has a cost per block, and what it reads in memory arrives ahead of
// it only along a long run. Blocks that fit the first-level cache are slower.
constexpr std::int64_t register_budget = 128 * 1024;
constexpr std::int64_t least_block = 256, greatest_block = 4096;
// Columns of a block whose rows are reduced: enough for long runs in memory, few enough for a block
// of many rows.
constexpr std::int64_t reduced_block_columns = 256, reduced_block_rows = 16;

// A block that reads transposed memory is a tile, so that whole cache lines are used.
constexpr std::int64_t tile_rows = 32, tile_columns = 64;

constexpr std::int32_t forever = std::numeric_limits<std::int32_t>::max();

std::optional<ChainLink> link_of(Op op) {
  if (op == Op::add) return ChainLink::add;
  if (op == Op::sub) return ChainLink::sub;
  if (op == Op::mul) return ChainLink::mul;
  if (op == Op::strong_mul) return ChainLink::strong_mul;
  return {};
}

BlockShape shape_of(const Access& access) {
  return (access.rows.varies() ? BlockShape::per_row : BlockShape::scalar) |
         (access.columns.varies() ? BlockShape::per_column : BlockShape::scalar);
}

// The operand of a bell curve: x where an instruction is exp(-(x x)) in f32 or f64, else -1.
std::int32_t bell_operand(const Tape& tape, std::size_t index) {
  const auto operand_of = [&](std::size_t i, Op op) {
    const TapeInstruction& instruction = tape.instructions[i];
    return instruction.code == TapeCode::apply && instruction.op == op &&
                   find_bell_kernel(instruction.dtype)
               ? instruction.operands[0]
               : -1;
  };
  const std::int32_t negative = operand_of(index, Op::exp);
  if (negative < 0) return -1;
  const std::int32_t square = operand_of(static_cast<std::size_t>(negative), Op::neg);
  if (square < 0) return -1;
  const std::int32_t x = operand_of(static_cast<std::size_t>(square), Op::mul);
  return x == tape.instructions[static_cast<std::size_t>(square)].operands[1] ? x : -1;
}

// The instructions to run: those that the wanted stores need and, with `partial`, all reductions.
std::vector<bool> needed(const Tape& tape, const BlockedTapeOptions& options) {
  std::vector<bool> need(tape.instructions.size(), false);
  if (options.partial) {
    for (std::size_t i = 0; i < need.size(); ++i)
      need[i] = tape.instructions[i].code == TapeCode::reduce;
  }
  for (const TapeStore& store : tape.stores) {
    const std::size_t value = static_cast<std::size_t>(store.value);
    if (!options.partial || !tape.instructions[value].narrow) need[value] = true;
  }
  for (std::size_t i = need.size(); i-- > 0;) {
    if (!need[i]) continue;
    if (const std::int32_t x = bell_operand(tape, i); x >= 0) {
      need[static_cast<std::size_t>(x)] = true;
      continue;
    }
    for (const std::int32_t operand : tape.instructions[i].operands)
      if (operand >= 0) need[static_cast<std::size_t>(operand)] = true;
  }
  return need;
}

}  // namespace

BlockedTape::BlockedTape(const Tape& tape, const BlockedTapeOptions& options)
    : reduce_(options.reduce), partial_(options.partial) {
  batches_ = points(tape.extents, options.groups.batch);
  rows_ = points(tape.extents, options.groups.rows);
  columns_ = points(tape.extents, options.groups.columns);
  vector_ = vector_lanes();

  const std::vector<bool> need = needed(tape, options);
  std::vector<std::int32_t> value_of(tape.instructions.size(), -1);
  for (std::size_t i = 0; i < need.size(); ++i)
    if (need[i]) add_instruction(tape, i, options, value_of);

  for (const TapeStore& source : tape.stores) {
    const TapeInstruction& instruction = tape.instructions[static_cast<std::size_t>(source.value)];
    const bool narrow = tape.reduced_axes > 0 && instruction.narrow;
    if (narrow && options.partial) continue;
    BlockShape shape = full_shape();
    if (narrow && reduce_ == ReduceAlong::columns)
      shape = rows_ > 1 ? BlockShape::per_row : BlockShape::scalar;
    if (narrow && reduce_ == ReduceAlong::rows) shape = BlockShape::per_column;
    Store store;
    store.value = spread_to(value_of[static_cast<std::size_t>(source.value)], shape);
    store.buffer = source.buffer;
    store.element_bytes = static_cast<std::int64_t>(size_of(source.dtype));
    const DType lane = values_[static_cast<std::size_t>(store.value)].dtype;
    store.copy = find_copy_out(lane, source.dtype);
    store.access = Access(tape.extents, options.groups, source.address, {});
    store.direct = shape == full_shape() && same_form(source.dtype, lane);
    stores_.push_back(std::move(store));
  }
  join_pairs();
  join_chains();
  find_direct_accesses();
  place_registers();
}

// The number of a value that equals `value` and has the given shape.
std::int32_t BlockedTape::spread_to(std::int32_t value, BlockShape shape) {
  const Value source = values_[static_cast<std::size_t>(value)];
  if (source.shape == shape) return value;
  Step step;
  step.code = TapeCode::apply;
  step.value = static_cast<std::int32_t>(values_.size());
  step.operands[0] = value;
  step.operand_count = 1;
  step.splat[0] = !has_columns(source.shape);
  // Spread along rows, a per-row value is a splat in each row; otherwise it is one contiguous line.
  if (!has_columns(shape) && has_rows(source.shape)) step.splat[0] = false;
  step.apply = find_spread_kernel(source.dtype);
  values_.push_back({source.dtype, shape, 0});
  steps_.push_back(step);
  return step.value;
}

void BlockedTape::add_instruction(const Tape& tape, std::size_t index,
                                  const BlockedTapeOptions& options,
                                  std::vector<std::int32_t>& value_of) {
  const TapeInstruction& instruction = tape.instructions[index];
  if (!is_register(instruction.dtype))
    throw DTypeError("cpu: a tape register can't hold " +
                     std::string(to_string(instruction.dtype)) +
                     "; f32, f64, i32, u32 and bool can");
  if (instruction.code == TapeCode::apply &&
      (instruction.op == Op::identity || instruction.op == Op::stop_gradient ||
       instruction.op == Op::convert)) {
    const std::int32_t operand = value_of[static_cast<std::size_t>(instruction.operands[0])];
    if (instruction.op != Op::convert ||
        values_[static_cast<std::size_t>(operand)].dtype == instruction.dtype) {
      value_of[index] = operand;
      return;
    }
  }
  const auto add_leaf = [&](std::int32_t argument, BlockShape shape, bool fixed) {
    Step step;
    step.code = instruction.code;
    step.fixed = fixed;
    step.value = static_cast<std::int32_t>(values_.size());
    step.argument = argument;
    values_.push_back({instruction.dtype, shape, 0});
    value_of[index] = step.value;
    steps_.push_back(step);
  };
  // A leaf whose argument is the number of this access in its list.
  const auto add_access = [&](std::size_t argument, const Access& access) {
    const BlockShape shape = shape_of(access);
    add_leaf(static_cast<std::int32_t>(argument), shape,
             shape == BlockShape::scalar && !access.batch.varies());
  };
  const std::size_t argument = static_cast<std::size_t>(instruction.argument);
  switch (instruction.code) {
    case TapeCode::load: {
      const TapeLoad& source = tape.loads[argument];
      Load load;
      load.buffer = source.buffer;
      load.dtype = instruction.dtype;
      load.element_bytes = static_cast<std::int64_t>(size_of(source.dtype));
      load.copy = find_copy_in(source.dtype, instruction.dtype);
      std::vector<AffineRange> limits;
      for (const LoadGuard& guard : source.guards) limits.push_back(guard.range);
      load.access = Access(tape.extents, options.groups, source.address, limits);
      load.direct = same_form(source.dtype, instruction.dtype) && !load.access.limited();
      load.transposed = load.direct && shape_of(load.access) == BlockShape::full &&
                        load.access.rows.step(0) == 1 && load.access.columns.step(0) != 1;
      add_access(loads_.size(), load.access);
      loads_.push_back(std::move(load));
      return;
    }
    case TapeCode::index:
      indices_.emplace_back(tape.extents, options.groups, tape.indices[argument],
                            std::vector<AffineRange>{});
      add_access(indices_.size() - 1, indices_.back());
      return;
    case TapeCode::in_range:
      ranges_.emplace_back(tape.extents, options.groups, Affine{},
                           std::vector<AffineRange>{tape.ranges[argument]});
      add_access(ranges_.size() - 1, ranges_.back());
      return;
    case TapeCode::result:
      add_leaf(instruction.argument, BlockShape::per_column, false);
      return;
    case TapeCode::scalar:
    case TapeCode::literal:
      add_leaf(instruction.argument, BlockShape::scalar, true);
      return;
    case TapeCode::apply:
      if (const std::int32_t x = bell_operand(tape, index); x >= 0) {
        TapeInstruction bell = instruction;
        bell.operands = {x, -1, -1};
        value_of[index] = add_apply(bell, value_of, true);
      } else {
        value_of[index] = add_apply(instruction, value_of, false);
      }
      return;
    case TapeCode::reduce:
      value_of[index] =
          add_reduction(instruction, value_of[static_cast<std::size_t>(instruction.operands[0])]);
      return;
  }
}

std::int32_t BlockedTape::add_reduction(const TapeInstruction& instruction, std::int32_t operand) {
  Step step;
  step.code = TapeCode::reduce;
  step.operands[0] = spread_to(operand, full_shape());
  step.operand_count = 1;
  step.value = static_cast<std::int32_t>(values_.size());
  const bool along_rows = reduce_ == ReduceAlong::rows;
  step.reduce = along_rows ? find_column_kernel(instruction.op, instruction.dtype)
                           : find_row_kernel(instruction.op, instruction.dtype);
  if (!step.reduce ||
      values_[static_cast<std::size_t>(step.operands[0])].dtype != instruction.dtype)
    throw DTypeError("cpu: can't reduce by " + std::string(to_string(instruction.op)) + " to " +
                     std::string(to_string(instruction.dtype)));
  values_.push_back({instruction.dtype,
                     along_rows  ? BlockShape::per_column
                     : rows_ > 1 ? BlockShape::per_row
                                 : BlockShape::scalar,
                     0});
  reductions_.push_back({instruction.op, instruction.dtype, step.value});
  steps_.push_back(step);
  return step.value;
}

std::int32_t BlockedTape::add_apply(const TapeInstruction& instruction,
                                    const std::vector<std::int32_t>& value_of, bool bell) {
  Step step;
  step.code = TapeCode::apply;
  step.value = static_cast<std::int32_t>(values_.size());
  BlockShape shape = BlockShape::scalar;
  DType operand_type = instruction.dtype;
  for (const std::int32_t operand : instruction.operands) {
    if (operand < 0) break;
    const std::int32_t source = value_of[static_cast<std::size_t>(operand)];
    step.operands[static_cast<std::size_t>(step.operand_count++)] = source;
    shape = shape | values_[static_cast<std::size_t>(source)].shape;
    operand_type = values_[static_cast<std::size_t>(source)].dtype;
  }
  values_.push_back({instruction.dtype, shape, 0});
  for (std::int32_t i = 0; i < step.operand_count; ++i) {
    const BlockShape own =
        values_[static_cast<std::size_t>(step.operands[static_cast<std::size_t>(i)])].shape;
    step.splat[static_cast<std::size_t>(i)] = own == BlockShape::scalar
                                                  ? shape != BlockShape::scalar
                                                  : has_columns(shape) && !has_columns(own);
  }
  if (const std::optional<ChainLink> link = link_of(instruction.op)) {
    step.chain = find_chain_kernel(instruction.dtype);
    step.links[0] = *link;
  }
  step.function = {instruction.op, bell};
  if (!step.chain)
    step.apply = bell ? find_bell_kernel(instruction.dtype)
                      : find_apply_kernel(instruction.op, operand_type, instruction.dtype);
  if (!step.chain && !step.apply)
    throw DTypeError("cpu: no kernel for " + std::string(to_string(instruction.op)) + " of " +
                     std::string(to_string(operand_type)));
  step.fixed = true;
  for (const Step& earlier : steps_)
    for (std::int32_t i = 0; i < step.operand_count; ++i)
      if (earlier.value == step.operands[static_cast<std::size_t>(i)])
        step.fixed = step.fixed && earlier.fixed;
  steps_.push_back(step);
  return step.value;
}

// Where a block wants two functions of one value that share their work, one step computes both.
void BlockedTape::join_pairs() {
  std::vector<Step> kept;
  for (const Step& step : steps_) {
    const auto partner = [&](Step& earlier) {
      if (earlier.code != TapeCode::apply || earlier.operand_count != 1 || earlier.pair ||
          earlier.operands[0] != step.operands[0] || earlier.splat[0] || earlier.fixed)
        return false;
      const DType dtype = values_[static_cast<std::size_t>(step.value)].dtype;
      if (PairKernel kernel = find_pair_kernel(earlier.function, step.function, dtype)) {
        earlier.pair = kernel, earlier.second = step.value;
      } else if ((kernel = find_pair_kernel(step.function, earlier.function, dtype))) {
        earlier.pair = kernel, earlier.second = earlier.value, earlier.value = step.value;
      }
      return earlier.pair != nullptr;
    };
    if (step.code != TapeCode::apply || step.operand_count != 1 || step.fixed ||
        std::none_of(kept.begin(), kept.end(), partner))
      kept.push_back(step);
  }
  steps_ = std::move(kept);
}

// Joins a chain to the only chain that reads it, if their shapes agree. Its result then never
// leaves the processor's registers.
void BlockedTape::join_chains() {
  std::vector<std::int32_t> uses(values_.size(), 0), made_at(values_.size(), -1);
  for (const Step& step : steps_)
    for (std::int32_t k = 0; k < step.operand_count; ++k)
      ++uses[static_cast<std::size_t>(step.operands[static_cast<std::size_t>(k)])];
  for (const Store& store : stores_) ++uses[static_cast<std::size_t>(store.value)];
  std::vector<bool> joined(steps_.size(), false);
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    Step& step = steps_[i];
    made_at[static_cast<std::size_t>(step.value)] = static_cast<std::int32_t>(i);
    if (!step.chain) continue;
    const auto beginning = [&](std::size_t operand) -> Step* {
      const std::size_t value = static_cast<std::size_t>(step.operands[operand]);
      if (uses[value] != 1 || made_at[value] < 0 ||
          values_[value].shape != values_[static_cast<std::size_t>(step.value)].shape)
        return nullptr;
      Step& maker = steps_[static_cast<std::size_t>(made_at[value])];
      return maker.chain && maker.fixed == step.fixed && maker.operand_count < max_chain_links + 1
                 ? &maker
                 : nullptr;
    };
    Step* first = beginning(0);
    if (Step* second = beginning(1);
        second && (!first || second->operand_count > first->operand_count)) {
      std::swap(step.operands[0], step.operands[1]);
      std::swap(step.splat[0], step.splat[1]);
      if (step.links[0] == ChainLink::sub) step.links[0] = ChainLink::sub_from;
      first = second;
    }
    if (!first) continue;
    const std::size_t length = static_cast<std::size_t>(first->operand_count);
    Step whole = *first;
    whole.value = step.value;
    whole.operands[length] = step.operands[1];
    whole.splat[length] = step.splat[1];
    whole.links[length - 1] = step.links[0];
    ++whole.operand_count;
    joined[static_cast<std::size_t>(made_at[static_cast<std::size_t>(first->value)])] = true;
    step = whole;
  }
  std::vector<Step> kept;
  for (std::size_t i = 0; i < steps_.size(); ++i)
    if (!joined[i]) kept.push_back(steps_[i]);
  steps_ = std::move(kept);
}

// Finds stores that the computing kernel (or copying load) may write directly, and loads that may
// be read in place. Neither may let a store overwrite memory that is still to be read; whether a
// load and a store share memory is known only at the call.
void BlockedTape::find_direct_accesses() {
  std::vector<std::int32_t> last_use(values_.size(), -1), made_at(values_.size(), -1);
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    made_at[static_cast<std::size_t>(step.value)] = static_cast<std::int32_t>(i);
    last_use[static_cast<std::size_t>(step.value)] = static_cast<std::int32_t>(i);
    if (step.second >= 0)
      made_at[static_cast<std::size_t>(step.second)] = static_cast<std::int32_t>(i);
    for (std::int32_t k = 0; k < step.operand_count; ++k)
      last_use[static_cast<std::size_t>(step.operands[static_cast<std::size_t>(k)])] =
          static_cast<std::int32_t>(i);
  }
  for (const Store& store : stores_) last_use[static_cast<std::size_t>(store.value)] = forever;
  for (std::size_t s = 0; s < stores_.size(); ++s) {
    Store& store = stores_[s];
    Step& step = steps_[static_cast<std::size_t>(made_at[static_cast<std::size_t>(store.value)])];
    store.direct = store.direct && (step.code == TapeCode::apply || step.code == TapeCode::load) &&
                   step.value == store.value && !step.fixed && step.direct_store < 0;
    if (!store.direct) continue;
    step.direct_store = static_cast<std::int32_t>(s);
    for (const Step& other : steps_)
      if (other.code == TapeCode::load && last_use[static_cast<std::size_t>(other.value)] >
                                              made_at[static_cast<std::size_t>(store.value)])
        store.late_loads.push_back(other.argument);
  }
  for (const Step& step : steps_)
    if (step.code == TapeCode::load)
      loads_[static_cast<std::size_t>(step.argument)].stored =
          last_use[static_cast<std::size_t>(step.value)] == forever;
}

// Assigns registers by linear scan: a register is free after the last step that reads its value. A
// kernel may overwrite its own operand.
void BlockedTape::place_registers() {
  std::vector<std::int32_t> last_use(values_.size(), -1);
  for (std::size_t i = 0; i < steps_.size(); ++i)
    for (std::int32_t k = 0; k < steps_[i].operand_count; ++k)
      last_use[static_cast<std::size_t>(steps_[i].operands[static_cast<std::size_t>(k)])] =
          static_cast<std::int32_t>(i);
  for (const Step& step : steps_)
    if (step.fixed) last_use[static_cast<std::size_t>(step.value)] = forever;
  for (const Store& store : stores_) last_use[static_cast<std::size_t>(store.value)] = forever;
  for (const Reduction& reduction : reductions_)
    last_use[static_cast<std::size_t>(reduction.value)] = forever;

  struct Slot {
    BlockShape shape;
    std::int64_t bytes;  // of a lane
    std::size_t offset;
  };
  std::vector<Slot> slots;
  std::vector<std::size_t> slot_of(values_.size());
  std::vector<std::size_t> free;
  const auto take = [&](const Value& value, bool fixed) {
    // A fixed value is written before the first step of a block, so it can't share a register with
    // an earlier step.
    const auto found =
        fixed ? free.end() : std::find_if(free.begin(), free.end(), [&](std::size_t slot) {
          return slots[slot].shape == value.shape && slots[slot].bytes == lane_bytes(value.dtype);
        });
    if (found == free.end()) {
      slots.push_back({value.shape, lane_bytes(value.dtype), 0});
      return slots.size() - 1;
    }
    const std::size_t slot = *found;
    free.erase(found);
    return slot;
  };
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    for (std::int32_t k = 0; k < step.operand_count; ++k) {
      const std::size_t operand =
          static_cast<std::size_t>(step.operands[static_cast<std::size_t>(k)]);
      const bool repeated =
          std::find(step.operands.begin(), step.operands.begin() + k,
                    step.operands[static_cast<std::size_t>(k)]) != step.operands.begin() + k;
      if (!repeated && last_use[operand] == static_cast<std::int32_t>(i))
        free.push_back(slot_of[operand]);
    }
    for (const std::int32_t value : {step.value, step.second})
      if (value >= 0)
        slot_of[static_cast<std::size_t>(value)] =
            take(values_[static_cast<std::size_t>(value)], step.fixed);
  }

  std::int64_t bytes_per_lane = 0;
  for (const Slot& slot : slots)
    if (slot.shape == full_shape()) bytes_per_lane += slot.bytes;
  choose_block(bytes_per_lane);

  scratch_bytes_ = aligned(values_.size() * sizeof(Register)) + aligned(loads_.size()) +
                   2 * aligned(stores_.size());
  for (Slot& slot : slots) {
    slot.offset = scratch_bytes_;
    const std::int64_t bytes = scratch_product({lanes(slot.shape), slot.bytes});
    scratch_bytes_ = scratch_sum({scratch_bytes_, aligned(static_cast<std::size_t>(bytes))});
  }
  for (const Step& step : steps_)
    for (const std::int32_t value : {step.value, step.second})
      if (value >= 0)
        values_[static_cast<std::size_t>(value)].offset =
            slots[slot_of[static_cast<std::size_t>(value)]].offset;
}

void BlockedTape::choose_block(std::int64_t bytes_per_lane) {
  const std::int64_t target =
      std::clamp(register_budget / std::max<std::int64_t>(bytes_per_lane, 4) / 64 * 64, least_block,
                 greatest_block);
  const std::int64_t columns = std::max<std::int64_t>(columns_, 1),
                     rows = std::max<std::int64_t>(rows_, 1);
  const bool whole_rows = reduce_ == ReduceAlong::columns && !partial_;
  if (reduce_ == ReduceAlong::rows) {
    if (partial_) {
      block_columns_ = std::min(columns, reduced_block_columns);
      block_rows_ = std::min(rows, std::max(reduced_block_rows, target / padded(block_columns_)));
    } else {
      block_rows_ = rows;
      block_columns_ = std::min(columns, std::max(target / rows / vector_ * vector_, vector_));
    }
  } else if (!whole_rows && std::any_of(loads_.begin(), loads_.end(),
                                        [](const Load& load) { return load.transposed; })) {
    block_columns_ = std::min(columns, tile_columns);
    block_rows_ = std::min(rows, tile_rows);
  } else if (whole_rows || padded(columns) <= target) {
    block_columns_ = columns;
    block_rows_ = std::min(rows, std::max<std::int64_t>(target / padded(columns), 1));
    // Blocks of a batch item about equally high.
    if (batches() > 1) block_rows_ = ceil_div(rows, ceil_div(rows, block_rows_));
  } else {
    block_columns_ = target;
    block_rows_ = 1;
  }
}

std::int64_t BlockedTape::lanes(BlockShape shape) const {
  switch (shape) {
    case BlockShape::scalar:
      return vector_;
    case BlockShape::per_row:
      return padded(block_rows_);
    case BlockShape::per_column:
      return padded(block_columns_);
    case BlockShape::full:
      return scratch_product({block_rows_, padded(block_columns_)});
  }
  return 0;
}

}  // namespace fluxion::cpu_backend
