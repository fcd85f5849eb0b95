// The invariants of a Program, checked without running it. Programs come from the planner, whose
// errors this finds, and from files, which may be hostile: a program that passes touches no memory
// outside its buffers.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "engine/error.h"
#include "engine/graph/expansion.h"
#include "engine/graph/shape_rules.h"
#include "engine/program/program.h"

namespace fluxion {
namespace {

// No coefficient times its extent, and no constant, exceeds this; so sums over a few axes can't
// overflow.
constexpr std::int64_t max_term = std::int64_t{1} << 50;
constexpr std::int64_t max_listed = std::int64_t{1} << 28;
constexpr std::size_t max_axes = 64;
// Spaces up to this many points are enumerated where interval arithmetic can't prove an address.
constexpr std::int64_t max_enumerated = 1 << 20;

std::int64_t at(const Dims& dims, std::size_t axis) { return axis < dims.size() ? dims[axis] : 0; }

struct Interval {
  std::int64_t low = 0, high = 0;  // inclusive
  bool within(std::int64_t begin, std::int64_t end) const { return low >= begin && high < end; }
};

// The values of `affine` over all points of a non-empty space.
Interval values_of(const Affine& affine, const Dims& extents) {
  Interval interval{affine.constant, affine.constant};
  for (std::size_t axis = 0; axis < extents.size(); ++axis) {
    const std::int64_t last = at(affine.coefficients, axis) * (extents[axis] - 1);
    (last < 0 ? interval.low : interval.high) += last;
  }
  return interval;
}

// Bounds of `address` over the points where `valid` holds: address = factor * index + rest, and a
// range bounds its index. Greedy over the ranges; each takes the factor that narrows the bounds
// most.
Interval bounded_values(const Affine& address, const std::vector<AffineRange>& valid,
                        const Dims& extents) {
  const auto width = [](const Interval& interval) {
    return static_cast<double>(interval.high) - static_cast<double>(interval.low);
  };
  Affine rest = address;
  Interval taken;
  for (const AffineRange& range : valid) {
    const Interval natural = values_of(range.index, extents);
    const Interval index{std::max(range.low, natural.low), std::min(range.high - 1, natural.high)};
    if (index.low > index.high) return {0, -1};  // the range never holds
    std::optional<std::pair<Affine, Interval>> best;
    double best_width = width(values_of(rest, extents));
    for (std::size_t axis = 0; axis < extents.size(); ++axis) {
      const std::int64_t step = at(range.index.coefficients, axis);
      if (step == 0 || extents[axis] == 1 || at(rest.coefficients, axis) % step != 0) continue;
      const std::int64_t factor = at(rest.coefficients, axis) / step;
      if (factor == 0) continue;
      const double reach = std::abs(static_cast<double>(factor)) *
                           std::max({std::abs(static_cast<double>(index.low)),
                                     std::abs(static_cast<double>(index.high)), width(natural),
                                     std::abs(static_cast<double>(range.index.constant))});
      if (reach > static_cast<double>(max_term)) continue;
      Affine remainder = rest;
      remainder.coefficients.resize(extents.size());
      remainder.constant -= factor * range.index.constant;
      for (std::size_t i = 0; i < extents.size(); ++i)
        remainder.coefficients[i] -=
            extents[i] == 1 ? remainder.coefficients[i] : factor * at(range.index.coefficients, i);
      Interval part{factor * index.low, factor * index.high};
      if (factor < 0) std::swap(part.low, part.high);
      const double narrowed = width(part) + width(values_of(remainder, extents));
      if (narrowed < best_width) {
        best_width = narrowed;
        best = {remainder, part};
      }
    }
    if (!best) continue;
    rest = best->first;
    taken = {taken.low + best->second.low, taken.high + best->second.high};
  }
  const Interval left = values_of(rest, extents);
  return {taken.low + left.low, taken.high + left.high};
}

std::int64_t value_at(const Affine& affine, const Dims& point) {
  std::int64_t value = affine.constant;
  for (std::size_t axis = 0; axis < point.size(); ++axis)
    value += at(affine.coefficients, axis) * point[axis];
  return value;
}

// Whether every valid point's address lies in [0, elements), point by point.
bool in_bounds_everywhere(const TapeLoad& load, const Dims& extents, std::int64_t elements) {
  Dims point(extents.size(), 0);
  for (;;) {
    const bool touched =
        std::all_of(load.valid.begin(), load.valid.end(), [&](const AffineRange& range) {
          const std::int64_t index = value_at(range.index, point);
          return range.low <= index && index < range.high;
        });
    const std::int64_t address = value_at(load.address, point);
    if (touched && (address < 0 || address >= elements)) return false;
    std::size_t axis = extents.size();
    while (axis > 0 && ++point[axis - 1] == extents[axis - 1]) point[--axis] = 0;
    if (axis == 0) return true;
  }
}

bool is_register(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f64 || dtype == DType::i32 || dtype == DType::u32 ||
         dtype == DType::boolean;
}
// What a register of `reg` may be loaded from and stored to.
bool converts(DType reg, DType stored) {
  if (stored == DType::bf16 || stored == DType::f16) return is_floating(reg);
  if (stored == DType::u8 || stored == DType::i64) return true;
  return stored == reg;
}
bool is_comparison(Op op) { return op >= Op::lt && op <= Op::ne; }

// How a kernel touches buffers, for liveness and in-place checks.
struct Access {
  std::int32_t buffer = 0;
  const Affine* address = nullptr;  // of a tape access that every point makes; else nullptr
  bool base = false;                // the tensor that an OpKernel copies before adding into it
};
struct Accesses {
  std::vector<Access> reads, writes;
};

class Verifier {
 public:
  explicit Verifier(const Program& program) : program_(program) {}

  void run() {
    check_slots();
    for (kernel_ = 0; kernel_ < static_cast<std::int64_t>(program_.kernels.size()); ++kernel_) {
      accesses_.emplace_back();
      std::visit([this](const auto& kernel) { check(kernel); },
                 program_.kernels[static_cast<std::size_t>(kernel_)]);
    }
    kernel_ = -1;
    check_order();
    check_overlap();
    check_donations();
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("verify: " +
                (kernel_ < 0 ? std::string() : "kernel " + std::to_string(kernel_) + ": ") + what);
  }

  // ---- buffers

  void check_slots() {
    if (program_.scalars < 0) fail("a negative number of scalars");
    if (program_.arena_bytes < 0) fail("an arena of negative size");
    for (const auto* types : {&program_.inputs, &program_.outputs})
      for (const TensorType& type : *types) check_type(type);
    std::vector<int> inputs(program_.inputs.size()), outputs(program_.outputs.size());
    for (std::size_t number = 0; number < program_.buffers.size(); ++number) {
      const BufferSlot& slot = program_.buffers[number];
      const std::string name = "buffer b" + std::to_string(number);
      check_type(slot.type);
      if (slot.kind == BufferKind::temporary) {
        const auto bytes = static_cast<std::int64_t>(slot.type.bytes());
        if (!(slot.offset >= 0 && slot.offset % 64 == 0))
          fail(name + " lies at " + std::to_string(slot.offset) + ", which is no multiple of 64");
        if (!(slot.offset <= program_.arena_bytes && bytes <= program_.arena_bytes - slot.offset))
          fail(name + " reaches beyond the arena");
        continue;
      }
      const bool input = slot.kind == BufferKind::input;
      const std::vector<TensorType>& types = input ? program_.inputs : program_.outputs;
      const std::string role = input ? "input " : "output ";
      if (!(slot.index >= 0 && slot.index < static_cast<std::int64_t>(types.size())))
        fail(name + " is bound to " + role + std::to_string(slot.index) + ", of " +
             std::to_string(types.size()));
      const TensorType& bound = types[static_cast<std::size_t>(slot.index)];
      if (!(bound.dtype == slot.type.dtype && bound.shape.elements() == slot.type.shape.elements()))
        fail(name + " is " + to_string(slot.type) + " but " + role + std::to_string(slot.index) +
             " is " + to_string(bound));
      if (++(input ? inputs : outputs)[static_cast<std::size_t>(slot.index)] != 1)
        fail(role + std::to_string(slot.index) + " has two buffers");
    }
    for (std::size_t output = 0; output < outputs.size(); ++output)
      if (outputs[output] != 1) fail("output " + std::to_string(output) + " has no buffer");
  }

  void check_type(const TensorType& type) const {
    std::int64_t elements = 1;
    for (const std::int64_t size : type.shape) {
      if (!(size >= 0 && size <= max_term / elements))
        fail("a tensor of absurd shape " + to_string(type.shape));
      elements *= std::max<std::int64_t>(size, 1);
    }
  }

  const BufferSlot& slot(std::int32_t buffer) const {
    if (!(buffer >= 0 && static_cast<std::size_t>(buffer) < program_.buffers.size()))
      fail("there is no buffer b" + std::to_string(buffer));
    return program_.buffers[static_cast<std::size_t>(buffer)];
  }

  void read(Access access) { accesses_.back().reads.push_back(access); }
  void write(Access access) {
    if (slot(access.buffer).kind == BufferKind::input)
      fail("writes b" + std::to_string(access.buffer) + ", which is an input");
    accesses_.back().writes.push_back(access);
  }

  // ---- tapes

  void check_affine(const Affine& affine, const Dims& extents, const std::string& what) const {
    if (affine.coefficients.size() != extents.size())
      fail(what + ": " + std::to_string(affine.coefficients.size()) + " coefficients for " +
           std::to_string(extents.size()) + " axes");
    bool small =
        std::abs(static_cast<double>(affine.constant)) <= static_cast<double>(max_term) / max_axes;
    for (std::size_t axis = 0; axis < extents.size(); ++axis)
      small = small && std::abs(static_cast<double>(affine.coefficients[axis])) *
                               static_cast<double>(std::max<std::int64_t>(extents[axis], 1)) <=
                           static_cast<double>(max_term) / max_axes;
    if (!small) fail(what + ": absurdly large coefficients");
  }

  std::int64_t check_extents(const Dims& extents) const {
    if (extents.size() > max_axes)
      fail("an iteration space of " + std::to_string(extents.size()) + " axes");
    std::int64_t points = 1;
    bool empty = false;
    for (const std::int64_t extent : extents) {
      if (!(extent >= 0 && extent <= max_term / points))
        fail("an absurd iteration space " + to_string(extents));
      points *= std::max<std::int64_t>(extent, 1);
      empty = empty || extent == 0;
    }
    return empty ? 0 : points;
  }

  static bool varies_along_row(const Affine& affine, const Tape& tape) {
    const std::size_t outer = tape.extents.size() - static_cast<std::size_t>(tape.reduced_axes);
    for (std::size_t axis = outer; axis < tape.extents.size(); ++axis)
      if (affine.coefficients[axis] != 0 && tape.extents[axis] > 1) return true;
    return false;
  }
  static bool varies_along_row(const std::vector<AffineRange>& ranges, const Tape& tape) {
    return std::any_of(ranges.begin(), ranges.end(), [&](const AffineRange& range) {
      return varies_along_row(range.index, tape);
    });
  }

  // `results`: of the contraction whose epilogue this is; none for a kernel of its own.
  void check_tape(const Tape& tape, std::optional<std::pair<std::int32_t, DType>> results) {
    const std::int64_t points = check_extents(tape.extents);
    if (!(tape.reduced_axes >= 0 &&
          static_cast<std::size_t>(tape.reduced_axes) <= tape.extents.size()))
      fail(std::to_string(tape.reduced_axes) + " reduced axes of " +
           std::to_string(tape.extents.size()));
    for (std::size_t i = 0; i < tape.loads.size(); ++i)
      check_load(tape, tape.loads[i], points, "load " + std::to_string(i));
    for (std::size_t i = 0; i < tape.indices.size(); ++i)
      check_affine(tape.indices[i], tape.extents, "index " + std::to_string(i));
    for (std::size_t i = 0; i < tape.ranges.size(); ++i)
      check_affine(tape.ranges[i].index, tape.extents, "range " + std::to_string(i));
    std::vector<bool> after_reduction(
        tape.instructions.size());  // the value depends on a reduction
    for (std::size_t i = 0; i < tape.instructions.size(); ++i)
      check_instruction(tape, static_cast<std::int32_t>(i), results, after_reduction);
    for (std::size_t i = 0; i < tape.stores.size(); ++i)
      check_store(tape, tape.stores[i], points, after_reduction, "store " + std::to_string(i));
  }

  void check_load(const Tape& tape, const TapeLoad& load, std::int64_t points,
                  const std::string& name) {
    const TensorType& type = slot(load.buffer).type;
    if (load.dtype != type.dtype)
      fail(name + " reads " + std::string(to_string(load.dtype)) + " from b" +
           std::to_string(load.buffer) + ", which is " + to_string(type));
    check_affine(load.address, tape.extents, name);
    for (const AffineRange& range : load.valid) {
      check_affine(range.index, tape.extents, name);
      if (!(std::abs(static_cast<double>(range.low)) <= static_cast<double>(max_term) &&
            std::abs(static_cast<double>(range.high)) <= static_cast<double>(max_term)))
        fail(name + ": absurdly large range");
    }
    const std::int64_t elements = type.shape.elements();
    if (points > 0) {
      const Interval interval = load.valid.empty()
                                    ? values_of(load.address, tape.extents)
                                    : bounded_values(load.address, load.valid, tape.extents);
      const bool proven = interval.low > interval.high || interval.within(0, elements) ||
                          (!load.valid.empty() && points <= max_enumerated &&
                           in_bounds_everywhere(load, tape.extents, elements));
      if (!proven)
        fail(name + " reads elements " + std::to_string(interval.low) + " to " +
             std::to_string(interval.high) + " of b" + std::to_string(load.buffer) +
             ", which has " + std::to_string(elements));
    }
    read({load.buffer, load.valid.empty() ? &load.address : nullptr});
  }

  void check_store(const Tape& tape, const TapeStore& store, std::int64_t points,
                   const std::vector<bool>& after_reduction, const std::string& name) {
    if (!(store.value >= 0 && static_cast<std::size_t>(store.value) < tape.instructions.size()))
      fail(name + " stores v" + std::to_string(store.value) + ", which does not exist");
    const TapeInstruction& value = tape.instructions[static_cast<std::size_t>(store.value)];
    const TensorType& type = slot(store.buffer).type;
    if (!(store.dtype == type.dtype && converts(value.dtype, store.dtype)))
      fail(name + " stores " + std::string(to_string(value.dtype)) + " as " +
           std::string(to_string(store.dtype)) + " in " + to_string(type));
    check_affine(store.address, tape.extents, name);
    const std::size_t outer = tape.extents.size() - static_cast<std::size_t>(tape.reduced_axes);
    if (value.narrow)
      if (varies_along_row(store.address, tape))
        fail(name + ": one value per row, but the address varies along the row");
    if (tape.streaming && !value.narrow)
      if (after_reduction[static_cast<std::size_t>(store.value)])
        fail(name + ": a streaming row stores a value that depends on its own reduction");
    if (points == 0) {
      // A narrow store of an empty row still happens.
      const bool rows =
          value.narrow && std::none_of(tape.extents.begin(),
                                       tape.extents.begin() + static_cast<std::ptrdiff_t>(outer),
                                       [](std::int64_t extent) { return extent == 0; });
      if (!rows) return write({store.buffer, nullptr});
    }
    Dims space = tape.extents;
    if (value.narrow) std::fill(space.begin() + static_cast<std::ptrdiff_t>(outer), space.end(), 1);
    for (std::size_t axis = 0; axis < space.size(); ++axis)
      if (!(space[axis] == 1 || store.address.coefficients[axis] != 0))
        fail(name + " writes one element several times along axis " + std::to_string(axis));
    const Interval interval = values_of(store.address, space);
    if (!(interval.within(0, type.shape.elements())))
      fail(name + " writes elements " + std::to_string(interval.low) + " to " +
           std::to_string(interval.high) + " of b" + std::to_string(store.buffer) + ", which has " +
           std::to_string(type.shape.elements()));
    write({store.buffer, &store.address});
  }

  void check_instruction(const Tape& tape, std::int32_t number,
                         std::optional<std::pair<std::int32_t, DType>> results,
                         std::vector<bool>& after_reduction) const {
    const TapeInstruction& instruction = tape.instructions[static_cast<std::size_t>(number)];
    const std::string name = "v" + std::to_string(number);
    const auto count = [](const auto& items) { return static_cast<std::int64_t>(items.size()); };
    const auto argument_below = [&](std::int64_t end) {
      if (!(instruction.argument >= 0 && instruction.argument < end))
        fail(name + ": argument " + std::to_string(instruction.argument) +
             " is out of range, there are " + std::to_string(end));
      return static_cast<std::size_t>(instruction.argument);
    };
    const auto narrow_if = [&](bool constant_along_row) {
      if (!(!instruction.narrow || constant_along_row))
        fail(name + ": marked as one value per row, but varies along the row");
    };
    if (!is_register(instruction.dtype))
      fail(name + ": no register holds " + std::string(to_string(instruction.dtype)));

    int operands = 0;
    if (instruction.code == TapeCode::apply || instruction.code == TapeCode::reduce)
      operands = info(instruction.op).inputs;
    bool all_narrow = true;
    for (int i = 0; i < static_cast<int>(instruction.operands.size()); ++i) {
      const std::int32_t operand = instruction.operands[static_cast<std::size_t>(i)];
      if (i >= operands) {
        if (operand != -1) fail(name + ": too many operands");
        continue;
      }
      if (!(operand >= 0 && operand < number))
        fail(name + ": operand v" + std::to_string(operand) + " does not come before it");
      all_narrow = all_narrow && tape.instructions[static_cast<std::size_t>(operand)].narrow;
      if (after_reduction[static_cast<std::size_t>(operand)])
        after_reduction[static_cast<std::size_t>(number)] = true;
    }
    const auto operand_type = [&](int i) {
      return tape
          .instructions[static_cast<std::size_t>(instruction.operands[static_cast<std::size_t>(i)])]
          .dtype;
    };

    switch (instruction.code) {
      case TapeCode::load: {
        const TapeLoad& load = tape.loads[argument_below(count(tape.loads))];
        if (!converts(instruction.dtype, load.dtype))
          fail(name + ": loads " + std::string(to_string(load.dtype)) + " as " +
               std::string(to_string(instruction.dtype)));
        narrow_if(!varies_along_row(load.address, tape) && !varies_along_row(load.valid, tape));
        break;
      }
      case TapeCode::scalar:
        argument_below(program_.scalars);
        break;
      case TapeCode::literal:
        if (std::abs(instruction.argument) > 1) fail(name + ": a literal is 0, 1 or -1");
        break;
      case TapeCode::index:
        narrow_if(!varies_along_row(tape.indices[argument_below(count(tape.indices))], tape));
        break;
      case TapeCode::in_range:
        narrow_if(!varies_along_row(tape.ranges[argument_below(count(tape.ranges))].index, tape));
        if (instruction.dtype != DType::boolean) fail(name + ": a range test is boolean");
        break;
      case TapeCode::result:
        if (!results.has_value()) fail(name + ": a result outside of an epilogue");
        argument_below(results->first);
        if (instruction.dtype != results->second) fail(name + ": reads a result as another dtype");
        break;
      case TapeCode::reduce:
        if (!(instruction.op == Op::sum || instruction.op == Op::max || instruction.op == Op::min))
          fail(name + ": reduces by " + std::string(to_string(instruction.op)));
        if (tape.reduced_axes <= 0) fail(name + ": reduces, but the tape has no row");
        if (!(instruction.narrow && !all_narrow))
          fail(name + ": a reduction takes one value per point and gives one per row");
        if (!(operand_type(0) == instruction.dtype && instruction.dtype != DType::boolean))
          fail(name + ": wrong dtype for a reduction");
        after_reduction[static_cast<std::size_t>(number)] = true;
        break;
      case TapeCode::apply: {
        const Op op = instruction.op;
        if (info(op).op_class != OpClass::elementwise)
          fail(name + ": " + std::string(to_string(op)) + " is not elementwise");
        if (!(!instruction.narrow || all_narrow))
          fail(name + ": one value per row from operands that vary along it");
        if (op == Op::convert) break;
        const int first = op == Op::where ? 1 : 0;
        for (int i = first + 1; i < operands; ++i)
          if (operand_type(i) != operand_type(first)) fail(name + ": operands of two dtypes");
        if (op == Op::where)
          if (operand_type(0) != DType::boolean) fail(name + ": the condition is not boolean");
        const bool coherent = is_comparison(op) ? instruction.dtype == DType::boolean
                                                : instruction.dtype == operand_type(first);
        if (!coherent)
          fail(name + ": " + std::string(to_string(op)) + " gives another dtype than " +
               std::string(to_string(instruction.dtype)));
        break;
      }
    }
    if (tape.streaming && !instruction.narrow)
      if (after_reduction[static_cast<std::size_t>(number)])
        fail(name + ": a streaming row has a value that depends on its own reduction");
  }

  // ---- kernels

  void check(const TapeKernel& kernel) { check_tape(kernel.tape, {}); }

  void check(const ContractKernel& kernel) {
    for (const DType operand : {kernel.lhs, kernel.rhs})
      if (!is_floating(operand) || (operand == DType::f64) != (kernel.accumulate == DType::f64) ||
          (kernel.accumulate != DType::f32 && kernel.accumulate != DType::f64))
        fail("contracts " + std::string(to_string(operand)) + " in " +
             std::string(to_string(kernel.accumulate)) +
             "; bf16, f16 and f32 are summed in f32, f64 in f64");
    check_extents({kernel.batch, kernel.m, kernel.n, kernel.k});
    std::vector<bool> computed(static_cast<std::size_t>(std::clamp<std::int64_t>(
        kernel.results, 0, static_cast<std::int64_t>(kernel.terms.size()))));
    for (std::size_t i = 0; i < kernel.terms.size(); ++i) {
      const ContractTerm& term = kernel.terms[i];
      const std::string name = "term " + std::to_string(i);
      check_operand(kernel.lhs, term.lhs, kernel.batch, kernel.m, kernel.k,
                    name + ", left operand");
      check_operand(kernel.rhs, term.rhs, kernel.batch, kernel.k, kernel.n,
                    name + ", right operand");
      if (!(term.result >= 0 && static_cast<std::size_t>(term.result) < computed.size()))
        fail(name + ": there is no result r" + std::to_string(term.result));
      computed[static_cast<std::size_t>(term.result)] = true;
    }
    if (!(kernel.results == static_cast<std::int64_t>(computed.size()) &&
          std::find(computed.begin(), computed.end(), false) == computed.end()))
      fail("a result has no term");
    const Tape& epilogue = kernel.epilogue;
    if (epilogue.reduced_axes != 0) fail("an epilogue has no reduced axes");
    const std::int64_t points = check_extents(epilogue.extents);
    const std::int64_t rows = kernel.batch * kernel.m;
    if (points != rows * kernel.n)
      fail("the epilogue's space " + to_string(epilogue.extents) +
           " is not batch x m x n = " + std::to_string(kernel.batch) + " x " +
           std::to_string(kernel.m) + " x " + std::to_string(kernel.n));
    if (points > 0) {
      std::int64_t product = 1;
      bool batch_ends = kernel.batch == 1, rows_end = rows == 1;
      for (const std::int64_t extent : epilogue.extents) {
        product *= extent;
        batch_ends = batch_ends || product == kernel.batch;
        rows_end = rows_end || product == rows;
      }
      if (!(batch_ends && rows_end))
        fail("an axis of the epilogue's space " + to_string(epilogue.extents) +
             " straddles batch, m and n");
    }
    check_tape(epilogue, std::pair(kernel.results, kernel.accumulate));
  }

  void check_operand(DType dtype, const ContractOperand& operand, std::int64_t batch,
                     std::int64_t rows, std::int64_t columns, const std::string& name) {
    const TensorType& type = slot(operand.buffer).type;
    if (type.dtype != dtype)
      fail(name + " is " + to_string(type) + ", the kernel reads it as " +
           std::string(to_string(dtype)));
    Dims sizes;
    Affine address{operand.offset, {}};
    for (const auto& [axis, size] :
         {std::pair(&operand.batch, batch), std::pair(&operand.rows, rows),
          std::pair(&operand.columns, columns)}) {
      if (axis->sizes.size() != axis->strides.size())
        fail(name + ": as many sizes as strides are wanted");
      if (check_extents(axis->sizes) != size)
        fail(name + ": digits " + to_string(axis->sizes) + " do not make " + std::to_string(size));
      // Backends may list the places along an axis of several digits.
      if (axis->sizes.size() > 1 && size > max_listed)
        fail(name + ": an absurdly long axis of digits " + to_string(axis->sizes));
      sizes.insert(sizes.end(), axis->sizes.begin(), axis->sizes.end());
      address.coefficients.insert(address.coefficients.end(), axis->strides.begin(),
                                  axis->strides.end());
    }
    const std::int64_t points = check_extents(sizes);
    check_affine(address, sizes, name);
    if (points > 0) {
      const Interval interval = values_of(address, sizes);
      if (!(interval.within(0, type.shape.elements())))
        fail(name + " reads elements " + std::to_string(interval.low) + " to " +
             std::to_string(interval.high) + " of b" + std::to_string(operand.buffer) +
             ", which has " + std::to_string(type.shape.elements()));
    }
    read({operand.buffer, nullptr});
  }

  void check(const OpKernel& kernel) {
    const std::string name(to_string(kernel.op));
    const OpInfo& op = info(kernel.op);
    const bool views = is_attention(kernel.op);
    if ((op.op_class == OpClass::fused && !views) || op.op_class == OpClass::region)
      fail(name + " should have been expanded");
    if (kernel.views.size() != (views ? kernel.inputs.size() : 0))
      fail(name + ": wrong number of views");
    if (!(kernel.op != Op::data && kernel.op != Op::parameter)) fail(name + " is not computed");
    if (!(kernel.inputs.size() == kernel.input_types.size() &&
          kernel.outputs.size() == kernel.output_types.size()))
      fail(name + ": one type per buffer is wanted");
    check_attributes(kernel);
    const auto check_buffer = [&](std::int32_t buffer, const TensorType& type) {
      check_type(type);
      const TensorType& stored = slot(buffer).type;
      if (!(stored.dtype == type.dtype && stored.shape.elements() == type.shape.elements()))
        fail(name + ": b" + std::to_string(buffer) + " is " + to_string(stored) + ", not " +
             to_string(type));
    };
    const bool elementwise = op.op_class == OpClass::elementwise;
    const bool adds = kernel.op == Op::index_add || kernel.op == Op::scatter_add;
    for (std::size_t i = 0; i < kernel.inputs.size(); ++i) {
      if (views) continue;
      check_buffer(kernel.inputs[i], kernel.input_types[i]);
      read({kernel.inputs[i], nullptr, elementwise || (adds && i == 0)});
    }
    if (op.op_class == OpClass::leaf) {
      if (!(kernel.inputs.empty() && kernel.outputs.size() == 1))
        fail(name + ": no inputs and one output are wanted");
    } else {
      if (infer_types(kernel.op, kernel.attributes, kernel.input_types, Location::current()) !=
          kernel.output_types)
        fail(name + ": wrong output types");
    }
    for (std::size_t i = 0; i < kernel.views.size(); ++i) {
      const Shape &shape = kernel.input_types[i].shape, &q = kernel.input_types[0].shape;
      const std::int64_t matrix_axes = shape.rank() < q.rank() ? 1 : 2, rank = shape.rank();
      std::int64_t batch = 1;
      for (std::int64_t axis = 0; axis < rank - matrix_axes; ++axis) batch *= shape[axis];
      if (kernel.views[i].buffer != kernel.inputs[i])
        fail(name + ": a view of another buffer than its input");
      check_operand(kernel.input_types[i].dtype, kernel.views[i], batch, shape[rank - matrix_axes],
                    matrix_axes == 2 ? shape[rank - 1] : 1, name);
    }
    for (std::size_t i = 0; i < kernel.outputs.size(); ++i) {
      if (std::find(kernel.outputs.begin(), kernel.outputs.begin() + static_cast<std::ptrdiff_t>(i),
                    kernel.outputs[i]) != kernel.outputs.begin() + static_cast<std::ptrdiff_t>(i))
        fail(name + " has b" + std::to_string(kernel.outputs[i]) + " for two outputs");
      check_buffer(kernel.outputs[i], kernel.output_types[i]);
      write({kernel.outputs[i], nullptr, true});
    }
  }

  void check_attributes(const OpKernel& kernel) const {
    const std::string name(to_string(kernel.op));
    if (const auto* scalar = std::get_if<IndexAttributes>(&kernel.attributes);
        scalar && kernel.op == Op::constant) {
      if (!(scalar->index >= 0 && scalar->index < program_.scalars))
        fail(name + ": names a scalar that the program does not have");
      return;
    }
    if (kernel.attributes.index() != info(kernel.op).attributes)
      fail(name + ": attributes of another op");
    const auto check_number = [&](std::int64_t number) {
      if (!(number >= 0 && number <= max_term)) fail(name + ": absurd attributes");
    };
    const auto check_list = [&](const Dims& list) {
      std::for_each(list.begin(), list.end(), check_number);
    };
    struct Visitor {
      const decltype(check_number)& number;
      const decltype(check_list)& list;
      void operator()(std::int64_t value) const { number(value); }
      void operator()(const Dims& values) const { list(values); }
      void operator()(double) const {}
      void operator()(bool) const {}
      void operator()(DType) const {}
    };
    std::visit(
        [&](const auto& attributes) {
          std::apply(
              [&](const auto&... members) {
                (Visitor{check_number, check_list}(members), ...);
              },
              std::decay_t<decltype(attributes)>::members(attributes));
        },
        kernel.attributes);
    const std::int64_t rank = kernel.output_types.empty() ? 0 : kernel.output_types[0].shape.rank();
    if (kernel.op == Op::iota)
      if (std::get<AxisAttributes>(kernel.attributes).axis >= rank)
        fail("iota: the axis is out of range");
    if (kernel.op == Op::flip)
      for (const std::int64_t axis : std::get<AxesAttributes>(kernel.attributes).axes)
        if (axis >= rank) fail("flip: an axis is out of range");
  }

  // ---- order and memory

  struct Life {
    std::int64_t first = -1, last = -1;  // kernels; -1: never
  };

  void check_order() {
    lives_.assign(program_.buffers.size(), {});
    for (std::size_t kernel = 0; kernel < accesses_.size(); ++kernel) {
      const auto now = static_cast<std::int64_t>(kernel);
      for (const Access& access : accesses_[kernel].reads) {
        Life& life = lives_[static_cast<std::size_t>(access.buffer)];
        if (!(life.first >= 0 || slot(access.buffer).kind == BufferKind::input ||
              slot(access.buffer).type.shape.elements() == 0))
          fail("kernel " + std::to_string(kernel) + " reads b" + std::to_string(access.buffer) +
               " before it is written");
        life.last = now;
      }
      for (const Access& access : accesses_[kernel].writes) {
        Life& life = lives_[static_cast<std::size_t>(access.buffer)];
        if (life.first >= 0 && life.first != now)
          fail("kernel " + std::to_string(kernel) + " writes b" + std::to_string(access.buffer) +
               " once more");
        if (life.first < 0) life.first = now;
        life.last = now;
      }
    }
    for (std::size_t number = 0; number < program_.buffers.size(); ++number) {
      const BufferSlot& slot = program_.buffers[number];
      if (slot.kind == BufferKind::output)
        if (!(lives_[number].first >= 0 || slot.type.shape.elements() == 0))
          fail("output " + std::to_string(slot.index) + " is never written");
    }
  }

  // Whether kernel `kernel` may write `to` in the memory of `from`: each of its reads of `from` is
  // at the very element that it writes.
  bool in_place(std::int64_t kernel, std::int32_t from, std::int32_t to) const {
    const TensorType &a = slot(from).type, &b = slot(to).type;
    if (size_of(a.dtype) != size_of(b.dtype)) return false;
    const Accesses& accesses = accesses_[static_cast<std::size_t>(kernel)];
    const bool op =
        std::holds_alternative<OpKernel>(program_.kernels[static_cast<std::size_t>(kernel)]);
    for (const Access& read : accesses.reads) {
      if (read.buffer != from) continue;
      for (const Access& write : accesses.writes) {
        if (write.buffer != to) continue;
        const bool same = op ? read.base && a.shape.elements() == b.shape.elements()
                             : read.address && write.address && *read.address == *write.address;
        if (!same) return false;
      }
    }
    return true;
  }

  // Walks the kernels with a map of the bytes that are in use: offset -> the temporary there. What
  // died is removed when something wants its place.
  void check_overlap() const {
    std::vector<std::vector<std::int32_t>> born(program_.kernels.size());
    for (std::size_t number = 0; number < program_.buffers.size(); ++number)
      if (program_.buffers[number].kind == BufferKind::temporary && lives_[number].first >= 0 &&
          program_.buffers[number].type.bytes() > 0)
        born[static_cast<std::size_t>(lives_[number].first)].push_back(
            static_cast<std::int32_t>(number));
    std::map<std::int64_t, std::int32_t> in_use;
    for (std::size_t kernel = 0; kernel < born.size(); ++kernel)
      for (const std::int32_t buffer : born[kernel]) {
        const std::int64_t begin = slot(buffer).offset, end = begin + bytes(buffer);
        auto other = in_use.lower_bound(begin);
        if (other != in_use.begin() &&
            std::prev(other)->first + bytes(std::prev(other)->second) > begin)
          --other;
        while (other != in_use.end() && other->first < end) {
          if (!makes_way(other->second, buffer))
            fail("b" + std::to_string(other->second) + " and b" + std::to_string(buffer) +
                 " share bytes of the arena, and both live at kernel " + std::to_string(kernel));
          other = in_use.erase(other);
        }
        in_use.emplace(begin, buffer);
      }
  }

  // Whether `older` is dead when `younger` is first written, or taken over by it in that very
  // kernel.
  bool makes_way(std::int32_t older, std::int32_t younger) const {
    const Life &before = lives_[static_cast<std::size_t>(older)],
               &after = lives_[static_cast<std::size_t>(younger)];
    if (before.last < after.first) return true;
    return before.last == after.first && before.first < after.first &&
           slot(older).offset == slot(younger).offset && bytes(older) == bytes(younger) &&
           in_place(after.first, older, younger);
  }

  std::int64_t bytes(std::int32_t buffer) const {
    return static_cast<std::int64_t>(slot(buffer).type.bytes());
  }

  void check_donations() const {
    if (program_.donations.size() != program_.outputs.size())
      fail("as many donations as outputs are wanted (-1 for none)");
    const auto kernels = static_cast<std::int64_t>(program_.kernels.size());
    if (!(program_.commit_point >= 0 && program_.commit_point <= kernels))
      fail("the commit point lies outside of the program");
    std::vector<bool> donated(program_.inputs.size());
    for (std::size_t output = 0; output < program_.outputs.size(); ++output) {
      const std::int32_t input = program_.donations[output];
      if (input == -1) continue;
      const std::string name = "output " + std::to_string(output);
      if (!(input >= 0 && static_cast<std::size_t>(input) < donated.size()))
        fail(name + " takes over input " + std::to_string(input) + ", which does not exist");
      if (donated[static_cast<std::size_t>(input)])
        fail("input " + std::to_string(input) + " is donated twice");
      donated[static_cast<std::size_t>(input)] = true;
      if (program_.inputs[static_cast<std::size_t>(input)].bytes() !=
          program_.outputs[output].bytes())
        fail(name + " and the input it takes over differ in size");
      const std::int32_t to = buffer_of(BufferKind::output, static_cast<std::int64_t>(output));
      const Life& written = lives_[static_cast<std::size_t>(to)];
      if (written.first < 0) continue;
      if (written.first < program_.commit_point)
        fail(name + " overwrites its donor before the commit point");
      const std::int32_t from = buffer_of(BufferKind::input, input);
      if (from < 0) continue;
      const Life& read = lives_[static_cast<std::size_t>(from)];
      if (!(read.last < written.first ||
            (read.last == written.first && in_place(written.first, from, to))))
        fail(name + " overwrites input " + std::to_string(input) + " at kernel " +
             std::to_string(written.first) + ", which is still to be read");
    }
  }

  std::int32_t buffer_of(BufferKind kind, std::int64_t index) const {
    for (std::size_t number = 0; number < program_.buffers.size(); ++number)
      if (program_.buffers[number].kind == kind && program_.buffers[number].index == index)
        return static_cast<std::int32_t>(number);
    return -1;
  }

  const Program& program_;
  std::int64_t kernel_ = -1;
  std::vector<Accesses> accesses_;  // per kernel
  std::vector<Life> lives_;         // per buffer
};

}  // namespace

void verify(const Program& program) { Verifier(program).run(); }

}  // namespace fluxion
