// Running a BlockedTape: one block, step by step.
#include <algorithm>
#include <cstring>

#include "backends/cpu/runtime/scratch.h"
#include "backends/cpu/tape/blocked_tape.h"
#include "backends/cpu/tape/tape_convert.h"

namespace fluxion::cpu_backend {

namespace {

void fill_scalar(std::byte* out, DType dtype, double value, std::int64_t n) {
  with_register_type(dtype, [&](auto lane) {
    std::fill_n(reinterpret_cast<decltype(lane)*>(out), n, convert_lane<decltype(lane)>(value));
  });
}

// Sets lanes [n, padded) to zero, so that kernels never read leftovers.
void clear_padding(std::byte* out, std::int64_t lane, std::int64_t n, std::int64_t padded) {
  if (n < padded) std::memset(out + n * lane, 0, static_cast<std::size_t>((padded - n) * lane));
}

}  // namespace

BlockedTape::Frame BlockedTape::frame(std::byte* scratch) const {
  Frame frame;
  frame.scratch = scratch;
  frame.registers = reinterpret_cast<Register*>(scratch);
  frame.load_in_place =
      reinterpret_cast<std::uint8_t*>(scratch + aligned(values_.size() * sizeof(Register)));
  frame.store_in_place = frame.load_in_place + aligned(loads_.size());
  frame.written = frame.store_in_place + aligned(stores_.size());
  return frame;
}

void BlockedTape::begin(const CallMemory& memory, std::byte* scratch) const {
  const Frame frame = this->frame(scratch);
  const auto at = [&](std::int32_t buffer) {
    return memory.buffers[static_cast<std::size_t>(buffer)];
  };
  for (std::size_t l = 0; l < loads_.size(); ++l) {
    bool in_place = loads_[l].direct;
    if (in_place && loads_[l].stored)
      for (const Store& store : stores_)
        in_place = in_place && at(store.buffer) != at(loads_[l].buffer);
    frame.load_in_place[l] = in_place;
  }
  for (std::size_t s = 0; s < stores_.size(); ++s) {
    bool in_place = stores_[s].direct;
    for (const std::int32_t load : stores_[s].late_loads)
      in_place =
          in_place && at(stores_[s].buffer) != at(loads_[static_cast<std::size_t>(load)].buffer);
    frame.store_in_place[s] = in_place;
    frame.written[s] = false;
  }
  const TapeBlock block{0, 0, 1, 0, 1};
  for (const Step& step : steps_)
    if (step.fixed) run_step(step, block, memory, {}, frame);
}

void BlockedTape::run(const TapeBlock& block, const CallMemory& memory,
                      std::span<const void* const> results, std::byte* scratch) const {
  const Frame frame = this->frame(scratch);
  for (const Step& step : steps_)
    if (!step.fixed) run_step(step, block, memory, results, frame);
  for (std::size_t s = 0; s < stores_.size(); ++s) {
    if (!frame.written[s]) store(stores_[s], block, memory, frame);
    frame.written[s] = false;
  }
}

const std::byte* BlockedTape::partial(std::size_t reduction, std::byte* scratch) const {
  return frame(scratch).registers[reductions_[reduction].value].data;
}

void BlockedTape::run_step(const Step& step, const TapeBlock& block, const CallMemory& memory,
                           std::span<const void* const> results, const Frame& frame) const {
  const Value& value = values_[static_cast<std::size_t>(step.value)];
  switch (step.code) {
    case TapeCode::apply:
      apply(step, block, memory, frame);
      return;
    case TapeCode::load:
      load(step, block, memory, frame);
      return;
    case TapeCode::reduce:
      reduce(step, block, frame);
      return;
    case TapeCode::index:
    case TapeCode::in_range:
      fill(step, block, frame);
      return;
    case TapeCode::result: {
      // Lanes of a contraction's tile. Read in place if whole vectors are readable.
      std::byte* data = frame.scratch + value.offset;
      const void* source = results[static_cast<std::size_t>(step.argument)];
      if (block.columns % vector_ == 0) {
        data = static_cast<std::byte*>(const_cast<void*>(source));
      } else {
        const std::int64_t lane = lane_bytes(value.dtype);
        std::memcpy(data, source, static_cast<std::size_t>(block.columns * lane));
        clear_padding(data, lane, block.columns, padded(block.columns));
      }
      frame.registers[step.value] = {data, 0};
      return;
    }
    case TapeCode::scalar:
    case TapeCode::literal: {
      std::byte* data = frame.scratch + value.offset;
      fill_scalar(data, value.dtype,
                  step.code == TapeCode::literal
                      ? step.argument
                      : memory.scalars[static_cast<std::size_t>(step.argument)],
                  vector_);
      frame.registers[step.value] = {data, 0};
      return;
    }
  }
}

std::optional<BlockedTape::Place> BlockedTape::rectangle(const Access& access, BlockShape shape,
                                                         const TapeBlock& block) const {
  const bool by_column = has_columns(shape), by_row = has_rows(shape);
  const std::int64_t count = by_column ? block.columns : block.rows;
  const AffineRuns& inner = by_column ? access.columns : access.rows;
  if (count % vector_ != 0 || inner.step(0) != 1 ||
      !inner.straight(by_column ? block.column : block.row, count))
    return {};
  if (by_column && by_row && !access.rows.straight(block.row, block.rows)) return {};
  std::int64_t offset = access.constant[0];
  access.batch.add(block.batch, &offset);
  if (by_row) access.rows.add(block.row, &offset);
  if (by_column) access.columns.add(block.column, &offset);
  return Place{offset, by_column && by_row ? access.rows.step(0) : 0};
}

// Where a step writes its lanes: into the buffer they are stored to if the forms agree, else into
// the register.
BlockedTape::Register BlockedTape::destination(const Step& step, const TapeBlock& block,
                                               const CallMemory& memory, const Frame& frame) const {
  const Value& value = values_[static_cast<std::size_t>(step.value)];
  const std::int64_t lane = lane_bytes(value.dtype);
  if (step.direct_store >= 0 && frame.store_in_place[step.direct_store]) {
    const Store& store = stores_[static_cast<std::size_t>(step.direct_store)];
    if (const auto place = rectangle(store.access, value.shape, block)) {
      frame.written[step.direct_store] = true;
      return {memory.buffers[static_cast<std::size_t>(store.buffer)] + place->offset * lane,
              place->row_step * lane};
    }
  }
  return {frame.scratch + value.offset, padded(block.columns) * lane};
}

void BlockedTape::load(const Step& step, const TapeBlock& block, const CallMemory& memory,
                       const Frame& frame) const {
  const Load& load = loads_[static_cast<std::size_t>(step.argument)];
  const Value& value = values_[static_cast<std::size_t>(step.value)];
  const std::int64_t lane = lane_bytes(value.dtype);
  std::byte* const source = memory.buffers[static_cast<std::size_t>(load.buffer)];
  Register& target = frame.registers[step.value];

  if (frame.load_in_place[step.argument] && value.shape != BlockShape::scalar) {
    if (const auto place = rectangle(load.access, value.shape, block)) {
      target = {source + place->offset * lane, place->row_step * lane};
      return;
    }
  }

  target = destination(step, block, memory, frame);
  std::byte* out = target.data;
  const Access& access = load.access;
  std::int64_t base[AffineRuns::max_functions];
  std::copy(access.constant.begin(), access.constant.end(), base);
  access.batch.add(block.batch, base);

  // Copies a run of one group of axes and clears the padding after it.
  const auto copy_line = [&](const AffineRuns& walk, std::int64_t begin, std::int64_t count,
                             const std::int64_t* values, std::byte* line) {
    const std::int64_t* steps = walk.inner_steps();
    std::byte* to = line;
    walk.for_runs(begin, count, values, [&](const std::int64_t* at, std::int64_t n) {
      if (!access.limited()) {
        load.copy(to, source + at[0] * load.element_bytes, steps[0], n);
      } else {
        const LaneRange range = valid_lanes(access, at, steps, n);
        if (range.first > 0) std::memset(to, 0, static_cast<std::size_t>(range.first * lane));
        if (range.last > range.first)
          load.copy(to + range.first * lane,
                    source + (at[0] + range.first * steps[0]) * load.element_bytes, steps[0],
                    range.last - range.first);
        if (range.last < n)
          std::memset(to + range.last * lane, 0, static_cast<std::size_t>((n - range.last) * lane));
      }
      to += n * lane;
    });
    clear_padding(line, lane, count, padded(count));
  };

  switch (value.shape) {
    case BlockShape::scalar: {
      const bool valid = valid_lanes(access, base, access.columns.inner_steps(), 1).last == 1;
      if (valid)
        load.copy(out, source + base[0] * load.element_bytes, 0, vector_);
      else
        std::memset(out, 0, static_cast<std::size_t>(vector_ * lane));
      return;
    }
    case BlockShape::per_row:
      copy_line(access.rows, block.row, block.rows, base, out);
      return;
    case BlockShape::per_column:
      copy_line(access.columns, block.column, block.columns, base, out);
      return;
    case BlockShape::full: {
      if (load.transposed && access.rows.straight(block.row, block.rows) &&
          access.columns.straight(block.column, block.columns)) {
        access.rows.add(block.row, base);
        access.columns.add(block.column, base);
        copy_transposed(out, target.row_step / lane, source + base[0] * lane,
                        access.columns.step(0), block.rows, block.columns, lane);
        for (std::int64_t row = 0; row < block.rows; ++row)
          clear_padding(out + row * target.row_step, lane, block.columns, padded(block.columns));
        return;
      }
      const std::size_t functions = access.functions();
      access.rows.for_runs(block.row, block.rows, base,
                           [&](const std::int64_t* at, std::int64_t n) {
                             std::int64_t values[AffineRuns::max_functions];
                             std::copy_n(at, functions, values);
                             for (std::int64_t row = 0; row < n; ++row) {
                               copy_line(access.columns, block.column, block.columns, values, out);
                               out += target.row_step;
                               for (std::size_t f = 0; f < functions; ++f)
                                 values[f] += access.rows.step(f);
                             }
                           });
      return;
    }
  }
}

// The values of an index or a range at each point.
void BlockedTape::fill(const Step& step, const TapeBlock& block, const Frame& frame) const {
  const bool ranged = step.code == TapeCode::in_range;
  const Access& access = (ranged ? ranges_ : indices_)[static_cast<std::size_t>(step.argument)];
  const Value& value = values_[static_cast<std::size_t>(step.value)];
  const std::int64_t lane = lane_bytes(value.dtype);
  std::byte* out = frame.scratch + value.offset;
  frame.registers[step.value] = {out, padded(block.columns) * lane};
  std::int64_t base[AffineRuns::max_functions];
  std::copy(access.constant.begin(), access.constant.end(), base);
  access.batch.add(block.batch, base);

  const auto fill_run = [&](std::byte* to, const std::int64_t* at, const std::int64_t* steps,
                            std::int64_t n) {
    if (!ranged) {
      fill_affine(to, value.dtype, at[0], steps[0], n);
    } else {
      const LaneRange range = valid_lanes(access, at, steps, n);
      std::memset(to, 0, static_cast<std::size_t>(n * lane));
      std::memset(to + range.first * lane, 0xFF,
                  static_cast<std::size_t>((range.last - range.first) * lane));
    }
  };
  const auto fill_line = [&](const AffineRuns& walk, std::int64_t begin, std::int64_t count,
                             const std::int64_t* values, std::byte* line) {
    std::byte* to = line;
    walk.for_runs(begin, count, values, [&](const std::int64_t* at, std::int64_t n) {
      fill_run(to, at, walk.inner_steps(), n);
      to += n * lane;
    });
    clear_padding(line, lane, count, padded(count));
  };
  switch (value.shape) {
    case BlockShape::scalar: {
      constexpr std::int64_t still[2] = {0, 0};
      fill_run(out, base, still, vector_);
      return;
    }
    case BlockShape::per_row:
      fill_line(access.rows, block.row, block.rows, base, out);
      return;
    case BlockShape::per_column:
      fill_line(access.columns, block.column, block.columns, base, out);
      return;
    case BlockShape::full:
      for (std::int64_t row = 0; row < block.rows; ++row) {
        std::int64_t values[AffineRuns::max_functions];
        std::copy_n(base, access.functions(), values);
        access.rows.add(block.row + row, values);
        fill_line(access.columns, block.column, block.columns, values,
                  out + row * padded(block.columns) * lane);
      }
      return;
  }
}

void BlockedTape::apply(const Step& step, const TapeBlock& block, const CallMemory& memory,
                        const Frame& frame) const {
  const Value& value = values_[static_cast<std::size_t>(step.value)];
  const std::int64_t lane = lane_bytes(value.dtype);
  std::int64_t rows = 1, columns = vector_;
  switch (value.shape) {
    case BlockShape::scalar:
      break;
    case BlockShape::per_row:
      columns = padded(block.rows);
      break;
    case BlockShape::per_column:
      columns = padded(block.columns);
      break;
    case BlockShape::full:
      rows = block.rows;
      columns = padded(block.columns);
      break;
  }
  const Register out = destination(step, block, memory, frame);

  Lanes operands[max_chain_links + 1];
  bool merges = rows > 1 && out.row_step == columns * lane;
  for (std::int32_t i = 0; i < step.operand_count; ++i) {
    const std::size_t operand =
        static_cast<std::size_t>(step.operands[static_cast<std::size_t>(i)]);
    Lanes& lanes = operands[i];
    lanes.data = frame.registers[operand].data;
    lanes.splat = step.splat[static_cast<std::size_t>(i)];
    if (rows == 1) continue;
    const Value& source = values_[operand];
    const std::int64_t source_lane = lane_bytes(source.dtype);
    lanes.row_step = source.shape == BlockShape::full      ? frame.registers[operand].row_step
                     : source.shape == BlockShape::per_row ? source_lane
                                                           : 0;
    merges = merges && !lanes.splat && lanes.row_step == columns * source_lane;
  }
  if (merges) {
    columns *= rows;
    rows = 1;
  }
  if (step.chain)
    step.chain(out.data, out.row_step, operands, step.links.data(), step.operand_count - 1, rows,
               columns);
  else if (!step.pair)
    step.apply(out.data, out.row_step, operands, rows, columns);
  frame.registers[step.value] = out;
  if (!step.pair) return;
  const Register second{frame.scratch + values_[static_cast<std::size_t>(step.second)].offset,
                        padded(block.columns) * lane};
  step.pair(out.data, out.row_step, second.data, second.row_step, operands[0], rows, columns);
  frame.registers[step.second] = second;
}

void BlockedTape::reduce(const Step& step, const TapeBlock& block, const Frame& frame) const {
  const Value& value = values_[static_cast<std::size_t>(step.value)];
  const Register& source = frame.registers[step.operands[0]];
  std::byte* out = frame.scratch + value.offset;
  const std::int64_t lane = lane_bytes(value.dtype);
  const Lanes lanes{source.data, source.row_step, false};
  if (reduce_ == ReduceAlong::rows) {
    step.reduce(out, lanes, block.rows, padded(block.columns));
  } else {
    step.reduce(out, lanes, block.rows, block.columns);
    if (value.shape == BlockShape::per_row) {
      clear_padding(out, lane, block.rows, padded(block.rows));
    } else {
      for (std::int64_t i = 1; i < vector_; ++i)
        std::memcpy(out + i * lane, out, static_cast<std::size_t>(lane));
    }
  }
  frame.registers[step.value] = {out, 0};
}

void BlockedTape::store(const Store& store, const TapeBlock& block, const CallMemory& memory,
                        const Frame& frame) const {
  const Value& value = values_[static_cast<std::size_t>(store.value)];
  const Register& source = frame.registers[store.value];
  const std::int64_t lane = lane_bytes(value.dtype);
  std::byte* const target = memory.buffers[static_cast<std::size_t>(store.buffer)];
  const Access& access = store.access;
  std::int64_t base = access.constant[0];
  access.batch.add(block.batch, &base);

  const auto copy_line = [&](const AffineRuns& walk, std::int64_t begin, std::int64_t count,
                             std::int64_t offset, const std::byte* line) {
    walk.for_runs(begin, count, &offset, [&](const std::int64_t* at, std::int64_t n) {
      store.copy(target + at[0] * store.element_bytes, walk.step(0), line, n);
      line += n * lane;
    });
  };
  switch (value.shape) {
    case BlockShape::scalar:
      store.copy(target + base * store.element_bytes, 1, source.data, 1);
      return;
    case BlockShape::per_row:
      copy_line(access.rows, block.row, block.rows, base, source.data);
      return;
    case BlockShape::per_column:
      copy_line(access.columns, block.column, block.columns, base, source.data);
      return;
    case BlockShape::full: {
      const std::byte* line = source.data;
      access.rows.for_runs(block.row, block.rows, &base,
                           [&](const std::int64_t* at, std::int64_t n) {
                             for (std::int64_t row = 0; row < n; ++row) {
                               copy_line(access.columns, block.column, block.columns,
                                         at[0] + row * access.rows.step(0), line);
                               line += source.row_step;
                             }
                           });
      return;
    }
  }
}

}  // namespace fluxion::cpu_backend
