#include "backends/vulkan/kernels/tape_emitter.h"

#include <algorithm>
#include <utility>

#include "backends/vulkan/spirv/math.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/program/affines.h"

namespace fluxion::vulkan_backend {

using namespace spirv;

namespace {

std::int64_t last_coefficient(const Affine& affine, const Dims& extents) {
  return extents.empty() || extents.back() <= 1 ? 0 : affine.coefficients.back();
}

// Whether the affine function is `constant` modulo `width` at the first of as many neighbours, and
// then counts on by one.
bool counts_on(const Affine& affine, std::int64_t constant, std::int64_t width,
               const Dims& extents) {
  if (last_coefficient(affine, extents) != 1 || (affine.constant - constant) % width != 0)
    return false;
  for (std::size_t axis = 0; axis + 1 < extents.size(); ++axis)
    if (extents[axis] > 1 && affine.coefficients[axis] % width != 0) return false;
  return true;
}

// The values that the function takes over a space without empty axes.
struct Interval {
  std::int64_t low, high;
};
Interval values_taken(const Affine& affine, const Dims& extents) {
  Interval values{affine.constant, affine.constant};
  for (std::size_t axis = 0; axis < extents.size(); ++axis) {
    const std::int64_t last =
        affine.coefficients[axis] * std::max<std::int64_t>(extents[axis] - 1, 0);
    (last < 0 ? values.low : values.high) += last;
  }
  return values;
}

// The range without the bounds that hold anyway.
AffineRange tightened(const AffineRange& range, const Dims& extents) {
  const Interval values = values_taken(range.index, extents);
  AffineRange tight = range;
  tight.low = std::max(range.low, values.low);
  tight.high = std::min(range.high, values.high + 1);
  return tight;
}

// Whether a load's `width` neighbours lie together, and its guards hold for all or none of them.
bool moves_together(const TapeLoad& load, std::int64_t width, const Dims& extents) {
  if (!counts_on(load.address, 0, width, extents)) return false;
  return std::all_of(load.guards.begin(), load.guards.end(), [&](const LoadGuard& guard) {
    const AffineRange range = tightened(guard.range, extents);
    return last_coefficient(range.index, extents) == 0 ||
           (counts_on(range.index, range.low, width, extents) &&
            (range.high - range.low) % width == 0);
  });
}
bool moves_together(const TapeStore& store, std::int64_t width, const Dims& extents) {
  return counts_on(store.address, 0, width, extents);
}

Type type_of(const TapeInstruction& instruction) { return register_type(instruction.dtype); }

}  // namespace

TapeEmitter::TapeEmitter(Module& module, ShaderBindings& bindings, const Tape& tape,
                         std::uint32_t width)
    : module_(module),
      bindings_(bindings),
      tape_(tape),
      width_(width),
      values_(tape.instructions.size()),
      varies_(tape.instructions.size()) {
  for (std::size_t i = 0; i < tape.instructions.size(); ++i) {
    const TapeInstruction& instruction = tape.instructions[i];
    register_type(instruction.dtype);
    const auto argument = static_cast<std::size_t>(std::max(instruction.argument, 0));
    bool differs = false;
    switch (instruction.code) {
      case TapeCode::load: {
        const TapeLoad& load = tape.loads[argument];
        differs = varies(load.address);
        for (const LoadGuard& guard : load.guards) differs = differs || varies(guard.range.index);
        break;
      }
      case TapeCode::index:
        differs = varies(tape.indices[argument]);
        break;
      case TapeCode::in_range:
        differs = varies(tape.ranges[argument].index);
        break;
      case TapeCode::result:
        differs = true;
        break;
      case TapeCode::apply:
        for (const std::int32_t operand : instruction.operands)
          if (operand >= 0) differs = differs || varies_[static_cast<std::size_t>(operand)];
        break;
      case TapeCode::reduce:
        differs = tape.reduced_axes == 0;
        break;
      case TapeCode::scalar:
      case TapeCode::literal:
        break;
    }
    varies_[i] = differs && width > 1;
  }
}

bool TapeEmitter::takes(const Tape& tape, std::uint32_t width) {
  return !tape.extents.empty() && tape.extents.back() > 0 && tape.extents.back() % width == 0;
}

bool TapeEmitter::gains_from(const Tape& tape, std::uint32_t width, const Storage& storage) {
  if (!takes(tape, width)) return false;
  const auto gains = [&](const auto& access) {
    return TensorMemory::most_at_once(storage.kept(access.dtype)) >= width &&
           moves_together(access, width, tape.extents);
  };
  return std::any_of(tape.loads.begin(), tape.loads.end(), gains) ||
         std::any_of(tape.stores.begin(), tape.stores.end(), gains);
}

template <class Access>
std::uint32_t TapeEmitter::moved_at_once(const Access& access, const TensorMemory& memory) const {
  for (std::uint32_t width = std::min(width_, memory.most_at_once()); width >= 4; width /= 2)
    if (moves_together(access, width, tape_.extents)) return width;
  return 1;
}

bool TapeEmitter::varies(const Affine& affine) const {
  return last_coefficient(affine, tape_.extents) != 0;
}

void TapeEmitter::move_to(std::vector<Value> coordinates) {
  coordinates_ = std::move(coordinates);
  for (std::size_t i = 0; i < values_.size(); ++i)
    if (!tape_.instructions[i].narrow) values_[i] = {};
}

void TapeEmitter::move_to_row(std::vector<Value> coordinates) {
  coordinates_ = std::move(coordinates);
  values_.assign(values_.size(), {});
}

Value TapeEmitter::address(const Affine& affine, std::uint32_t lane) const {
  const std::int64_t constant = affine.constant + last_coefficient(affine, tape_.extents) * lane;
  // The constant last: what differs between lanes is one addition.
  Value moving = module_.u32(0);
  for (std::size_t axis = 0; axis < tape_.extents.size(); ++axis) {
    const std::int64_t coefficient = affine.coefficients[axis];
    if (coefficient == 0 || tape_.extents[axis] <= 1) continue;
    moving = moving + coordinates_[axis] * module_.u32(static_cast<std::uint32_t>(coefficient));
  }
  return moving + module_.u32(static_cast<std::uint32_t>(constant));
}

Value TapeEmitter::holds(const AffineRange& range, std::uint32_t lane) const {
  const Interval values = values_taken(range.index, tape_.extents);
  const AffineRange tight = tightened(range, tape_.extents);
  if (tight.low >= tight.high) return module_.boolean(false);
  if (tight.low == values.low && tight.high == values.high + 1) return module_.boolean(true);
  // Below the range wraps to far above it.
  Affine from_low = tight.index;
  from_low.constant -= tight.low;
  return address(from_low, lane) < module_.u32(static_cast<std::uint32_t>(tight.high - tight.low));
}

const TensorMemory& TapeEmitter::memory(std::int32_t buffer, bool reads, bool writes) {
  bindings_.buffer(buffer, reads, writes);
  for (const auto& [number, memory] : memories_)
    if (number == buffer) return memory;
  memories_.emplace_back(buffer, TensorMemory(module_, bindings_, buffer, reads, writes));
  return memories_.back().second;
}

TapeEmitter::Lanes TapeEmitter::load(const TapeLoad& load, Type type) {
  const TensorMemory& from = memory(load.buffer, true, false);
  const Value zero = module_.constant(type, 0);
  bool differs = varies(load.address);
  for (const LoadGuard& guard : load.guards) differs = differs || varies(guard.range.index);
  const std::uint32_t together = moved_at_once(load, from);
  const std::uint32_t lanes = differs && width_ > 1 ? width_ : 1;
  Lanes values;
  for (std::uint32_t lane = 0; lane < lanes; lane += together) {
    const std::span<Value> some = std::span(values).subspan(lane, together);
    Value inside = module_.boolean(from.elements() > 0);
    for (const LoadGuard& guard : load.guards) inside = inside & holds(guard.range, lane);
    if (inside.is(0)) {
      std::ranges::fill(some, zero);
      continue;
    }
    // Outside nothing may be read: element 0 stands in, and is not used.
    const Value at = select(inside, address(load.address, lane), module_.u32(0));
    if (together > 1)
      from.load_many(at, some);
    else
      some[0] = from.load(at);
    for (Value& value : some) value = select(inside, convert_number(type, value), zero);
  }
  if (lanes == 1) values.fill(values[0]);
  return values;
}

Value TapeEmitter::scalar(std::int32_t number, Type type) const {
  const std::uint32_t which = type == F32 ? 0 : type == I32 ? 1 : type == U32 ? 2 : 3;
  const Value at = module_.u32(4 * static_cast<std::uint32_t>(number) + which);
  const Value bits = module_.buffer(bindings_.scalars(), U32).load(at);
  return type == Bool ? bits != 0 : bitcast(type, bits);
}

TapeEmitter::Lanes TapeEmitter::lanes_of(std::int32_t number) {
  const TapeInstruction& instruction = tape_.instructions[static_cast<std::size_t>(number)];
  const Type type = type_of(instruction);
  const auto argument = static_cast<std::size_t>(std::max(instruction.argument, 0));
  if (instruction.code == TapeCode::load) return load(tape_.loads[argument], type);
  const std::uint32_t lanes = varies_[static_cast<std::size_t>(number)] ? width_ : 1;
  Lanes values;
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    switch (instruction.code) {
      case TapeCode::scalar:
        values[lane] = scalar(instruction.argument, type);
        break;
      case TapeCode::literal:
        values[lane] = type == Bool  ? module_.boolean(instruction.argument != 0)
                       : type == F32 ? module_.f32(static_cast<float>(instruction.argument))
                                     : module_.constant(
                                           type, static_cast<std::uint32_t>(instruction.argument));
        break;
      case TapeCode::index:
        values[lane] = convert_number(type, bitcast(I32, address(tape_.indices[argument], lane)));
        break;
      case TapeCode::in_range:
        values[lane] = holds(tape_.ranges[argument], lane);
        break;
      case TapeCode::result:
        if (!results_) throw Error("vulkan: a tape reads a result outside of an epilogue");
        values[lane] = results_(instruction.argument, lane);
        break;
      case TapeCode::apply: {
        std::array<Value, 3> operands;
        std::size_t count = 0;
        for (const std::int32_t operand : instruction.operands)
          if (operand >= 0) operands[count++] = value(operand, lane);
        values[lane] = elementwise(instruction.op, type, std::span(operands).first(count));
        break;
      }
      case TapeCode::reduce:
        throw Error("vulkan: the value of a reduction is read before it is known");
      case TapeCode::load:
        break;
    }
  }
  if (lanes == 1) values.fill(values[0]);
  return values;
}

Value TapeEmitter::value(std::int32_t instruction, std::uint32_t lane) {
  if (!has_value(instruction)) {
    const Lanes lanes = lanes_of(instruction);
    values_[static_cast<std::size_t>(instruction)] = lanes;
  }
  return values_[static_cast<std::size_t>(instruction)][lane];
}

void TapeEmitter::set_value(std::int32_t instruction, Value value, std::uint32_t lane) {
  Lanes& lanes = values_[static_cast<std::size_t>(instruction)];
  if (varies_[static_cast<std::size_t>(instruction)])
    lanes[lane] = value;
  else
    lanes.fill(value);
}

void TapeEmitter::store(std::span<const std::int32_t> stores) {
  for (const std::int32_t number : stores)
    for (std::uint32_t lane = 0; lane < width_; ++lane)
      value(tape_.stores[static_cast<std::size_t>(number)].value, lane);
  for (const std::int32_t number : stores) {
    const TapeStore& store = tape_.stores[static_cast<std::size_t>(number)];
    const TensorMemory& to = memory(store.buffer, false, true);
    // One value per row has one address.
    const std::uint32_t lanes = varies(store.address) ? width_ : 1,
                        together = moved_at_once(store, to);
    for (std::uint32_t lane = 0; lane < lanes; lane += together) {
      const Value at = address(store.address, lane);
      if (together == 1) {
        to.store(at, value(store.value, lane));
        continue;
      }
      Lanes values;
      for (std::uint32_t i = 0; i < together; ++i) values[i] = value(store.value, lane + i);
      to.store_many(at, std::span(values).first(together));
    }
  }
}

void TapeEmitter::emit(std::vector<Value> coordinates, const Results& results) {
  move_to_row(std::move(coordinates));
  if (results) results_ = results;
  std::vector<std::int32_t> all(tape_.stores.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
  store(all);
}

// ---- spaces

Tape simplified(const Tape& tape) {
  Tape result = tape;
  const auto drop = [&](std::size_t axis) {
    const auto at = static_cast<std::ptrdiff_t>(axis);
    result.extents.erase(result.extents.begin() + at);
    for_each_affine(result, [&](Affine& affine) {
      affine.coefficients.erase(affine.coefficients.begin() + at);
    });
  };
  const auto rows = [&] {
    return result.extents.size() - static_cast<std::size_t>(result.reduced_axes);
  };
  for (std::size_t axis = result.extents.size(); axis-- > 0;) {
    const bool of_row = axis >= rows();
    if (result.extents[axis] == 1) {
      // The last axis of a row stays: a row of one element is still a row.
      if (of_row && result.reduced_axes == 1) continue;
      drop(axis);
      if (of_row) --result.reduced_axes;
      continue;
    }
    if (axis + 1 >= result.extents.size() || axis + 1 == rows()) continue;
    const std::int64_t inner = result.extents[axis + 1];
    bool runs_on = true;
    for_each_affine(std::as_const(result), [&](const Affine& affine) {
      runs_on = runs_on && affine.coefficients[axis] == affine.coefficients[axis + 1] * inner;
    });
    if (!runs_on) continue;
    result.extents[axis + 1] *= result.extents[axis];
    drop(axis);
    if (of_row) --result.reduced_axes;
  }
  return result;
}

std::vector<Value> coordinates_of(Value index, std::span<const std::int64_t> extents) {
  std::vector<Value> coordinates(extents.size());
  for (std::size_t axis = extents.size(); axis-- > 0;) {
    if (axis == 0) {
      coordinates[axis] = index;
      break;
    }
    const Split parts =
        split(index, static_cast<std::uint32_t>(std::max<std::int64_t>(extents[axis], 1)));
    coordinates[axis] = parts.remainder;
    index = parts.quotient;
  }
  return coordinates;
}

}  // namespace fluxion::vulkan_backend
