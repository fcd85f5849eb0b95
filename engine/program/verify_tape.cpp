// Checks tapes: instructions have fitting types and read only earlier values, and addresses lie
// inside the buffers at every point of the iteration space.
#include <algorithm>

#include "engine/graph/op_names.h"
#include "engine/program/verify_parts.h"

namespace fluxion::verification {

namespace {

// Whether a register of dtype `reg` may be loaded from, or stored to, memory of dtype `stored`.
bool converts(DType reg, DType stored) {
  if (stored == DType::bf16 || stored == DType::f16) return is_floating(reg);
  if (stored == DType::u8 || stored == DType::i64) return true;
  return stored == reg;
}

// Bounds of the elements that a load reads over a space without empty axes, by the rule of
// TapeLoad. Nothing if it reads nowhere.
std::optional<Bounds> elements_read(const TapeLoad& load, const Dims& extents) {
  std::vector<Wide> rest(load.address.coefficients.begin(), load.address.coefficients.end());
  Wide constant = load.address.constant;
  Bounds bounds;
  for (const LoadGuard& guard : load.guards) {
    const Bounds natural = values_of(guard.range.index, extents);
    const Bounds index{std::max<Wide>(guard.range.low, natural.low),
                       std::min<Wide>(Wide{guard.range.high} - 1, natural.high)};
    if (index.low > index.high) return std::nullopt;
    const Wide stride = guard.stride;
    bounds.low += stride * (stride < 0 ? index.high : index.low);
    bounds.high += stride * (stride < 0 ? index.low : index.high);
    constant -= stride * guard.range.index.constant;
    for (std::size_t axis = 0; axis < extents.size(); ++axis)
      rest[axis] -= stride * guard.range.index.coefficients[axis];
  }
  bounds.low += constant;
  bounds.high += constant;
  for (std::size_t axis = 0; axis < extents.size(); ++axis) {
    const Wide last = rest[axis] * (extents[axis] - 1);
    (last < 0 ? bounds.low : bounds.high) += last;
  }
  return bounds;
}

class TapeCheck {
 public:
  TapeCheck(Inspection& inspection, const Tape& tape,
            std::optional<std::pair<std::int32_t, DType>> results)
      : inspection_(inspection), tape_(tape), results_(results) {}

  void run() {
    points_ = inspection_.points(tape_.extents);
    if (!(tape_.reduced_axes >= 0 &&
          static_cast<std::size_t>(tape_.reduced_axes) <= tape_.extents.size()))
      fail(std::to_string(tape_.reduced_axes) + " reduced axes of " +
           std::to_string(tape_.extents.size()));
    outer_ = tape_.extents.size() - static_cast<std::size_t>(tape_.reduced_axes);
    row_extents_ = tape_.extents;
    std::fill(row_extents_.begin() + static_cast<std::ptrdiff_t>(outer_), row_extents_.end(), 1);
    rows_ = inspection_.points(row_extents_);

    for (std::size_t i = 0; i < tape_.loads.size(); ++i)
      check_form(tape_.loads[i], "load " + std::to_string(i));
    for (std::size_t i = 0; i < tape_.indices.size(); ++i)
      inspection_.check_affine(tape_.indices[i], tape_.extents, "index " + std::to_string(i));
    for (std::size_t i = 0; i < tape_.ranges.size(); ++i)
      check_range(tape_.ranges[i], "range " + std::to_string(i));
    after_reduction_.resize(tape_.instructions.size());
    read_by_row_.resize(tape_.loads.size());
    for (std::size_t i = 0; i < tape_.instructions.size(); ++i)
      check_instruction(static_cast<std::int32_t>(i));
    for (std::size_t i = 0; i < tape_.loads.size(); ++i)
      check_elements(tape_.loads[i], read_by_row_[i], "load " + std::to_string(i));
    for (std::size_t i = 0; i < tape_.stores.size(); ++i)
      check_store(tape_.stores[i], "store " + std::to_string(i));
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { inspection_.fail(what); }

  bool varies_along_row(const Affine& affine) const {
    for (std::size_t axis = outer_; axis < tape_.extents.size(); ++axis)
      if (affine.coefficients[axis] != 0 && tape_.extents[axis] > 1) return true;
    return false;
  }

  void check_range(const AffineRange& range, const std::string& name) const {
    inspection_.check_affine(range.index, tape_.extents, name);
    for (const std::int64_t limit : {range.low, range.high})
      if (limit > max_reach || limit < -max_reach) fail(name + ": absurdly large range");
  }

  void check_form(const TapeLoad& load, const std::string& name) const {
    const TensorType& type = inspection_.slot(load.buffer).type;
    if (load.dtype != type.dtype)
      fail(name + " reads " + std::string(to_string(load.dtype)) + " from b" +
           std::to_string(load.buffer) + ", which is " + to_string(type));
    inspection_.check_affine(load.address, tape_.extents, name);
    if (load.guards.size() > max_guards) fail(name + ": absurdly many guards");
    for (const LoadGuard& guard : load.guards) {
      check_range(guard.range, name);
      if (guard.stride > max_tensor_bytes || guard.stride < -max_tensor_bytes)
        fail(name + ": a guard of absurd stride");
    }
  }

  // `by_row`: the load gives one value per row, which is computed for empty rows too.
  void check_elements(const TapeLoad& load, bool by_row, const std::string& name) {
    if ((by_row ? rows_ : points_) > 0) {
      const auto read = elements_read(load, by_row ? row_extents_ : tape_.extents);
      if (read && !read->within(0, inspection_.elements(load.buffer)))
        fail(name + " reads elements " + text(*read) + " of b" + std::to_string(load.buffer) +
             ", which has " + std::to_string(inspection_.elements(load.buffer)));
    }
    inspection_.read({load.buffer, load.guards.empty() ? &load.address : nullptr});
  }

  // Whether distinct points of the space have distinct addresses: with axes sorted by step, each
  // one steps over all addresses that the axes before it reach.
  bool is_injective(const Affine& address, const Dims& space) const {
    std::vector<std::pair<Wide, std::int64_t>> steps;
    for (std::size_t axis = 0; axis < space.size(); ++axis) {
      const Wide step = address.coefficients[axis];
      if (space[axis] > 1) steps.emplace_back(step < 0 ? -step : step, space[axis]);
    }
    std::sort(steps.begin(), steps.end());
    Wide reached = 0;
    for (const auto& [step, extent] : steps) {
      if (step <= reached) return false;
      reached += step * (extent - 1);
    }
    return true;
  }

  void check_store(const TapeStore& store, const std::string& name) {
    const TapeInstruction& value =
        inspection_.item(tape_.instructions, store.value, name + " stores v");
    const TensorType& type = inspection_.slot(store.buffer).type;
    if (!(store.dtype == type.dtype && converts(value.dtype, store.dtype)))
      fail(name + " stores " + std::string(to_string(value.dtype)) + " as " +
           std::string(to_string(store.dtype)) + " in " + to_string(type));
    inspection_.check_affine(store.address, tape_.extents, name);
    if (value.narrow && varies_along_row(store.address))
      fail(name + ": one value per row, but the address varies along the row");
    if (tape_.streaming && !value.narrow && after_reduction_[static_cast<std::size_t>(store.value)])
      fail(name + ": a streaming row stores a value that depends on its own reduction");
    if ((value.narrow ? rows_ : points_) == 0) return inspection_.write({store.buffer, nullptr});
    const Dims& space = value.narrow ? row_extents_ : tape_.extents;
    if (!is_injective(store.address, space)) fail(name + " writes one element several times");
    const Bounds written = values_of(store.address, space);
    if (!written.within(0, inspection_.elements(store.buffer)))
      fail(name + " writes elements " + text(written) + " of b" + std::to_string(store.buffer) +
           ", which has " + std::to_string(inspection_.elements(store.buffer)));
    inspection_.write({store.buffer, &store.address});
  }

  void check_instruction(std::int32_t number) {
    const TapeInstruction& instruction = tape_.instructions[static_cast<std::size_t>(number)];
    const std::string name = "v" + std::to_string(number);
    const auto narrow_if = [&](bool constant_along_row) {
      if (!(!instruction.narrow || constant_along_row))
        fail(name + ": marked as one value per row, but varies along the row");
    };
    if (!is_register(instruction.dtype))
      fail(name + ": no register holds " + std::string(to_string(instruction.dtype)));
    bool all_narrow = true;
    const int operands = check_operands(number, all_narrow);
    const auto operand_type = [&](int i) {
      return tape_
          .instructions[static_cast<std::size_t>(instruction.operands[static_cast<std::size_t>(i)])]
          .dtype;
    };
    const std::string argument = name + ": argument";
    switch (instruction.code) {
      case TapeCode::load: {
        const TapeLoad& load = inspection_.item(tape_.loads, instruction.argument, argument);
        if (!converts(instruction.dtype, load.dtype))
          fail(name + ": loads " + std::string(to_string(load.dtype)) + " as " +
               std::string(to_string(instruction.dtype)));
        narrow_if(!varies_along_row(load.address) &&
                  std::none_of(load.guards.begin(), load.guards.end(), [&](const LoadGuard& guard) {
                    return varies_along_row(guard.range.index);
                  }));
        if (instruction.narrow) read_by_row_[static_cast<std::size_t>(instruction.argument)] = true;
        break;
      }
      case TapeCode::scalar:
        check_argument(instruction.argument, inspection_.program.scalars, argument);
        break;
      case TapeCode::literal:
        if (instruction.argument < -1 || instruction.argument > 1)
          fail(name + ": a literal is 0, 1 or -1");
        break;
      case TapeCode::index:
        narrow_if(
            !varies_along_row(inspection_.item(tape_.indices, instruction.argument, argument)));
        break;
      case TapeCode::in_range:
        narrow_if(!varies_along_row(
            inspection_.item(tape_.ranges, instruction.argument, argument).index));
        if (instruction.dtype != DType::boolean) fail(name + ": a range test is boolean");
        break;
      case TapeCode::result:
        if (!results_.has_value()) fail(name + ": a result outside of an epilogue");
        check_argument(instruction.argument, results_->first, argument);
        if (instruction.dtype != results_->second) fail(name + ": reads a result as another dtype");
        break;
      case TapeCode::reduce:
        if (!(instruction.op == Op::sum || instruction.op == Op::max || instruction.op == Op::min))
          fail(name + ": reduces by " + std::string(to_string(instruction.op)));
        if (tape_.reduced_axes <= 0) fail(name + ": reduces, but the tape has no row");
        if (!(instruction.narrow && !all_narrow))
          fail(name + ": a reduction takes one value per point and gives one per row");
        if (!(operand_type(0) == instruction.dtype && instruction.dtype != DType::boolean))
          fail(name + ": wrong dtype for a reduction");
        after_reduction_[static_cast<std::size_t>(number)] = true;
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
        if (op == Op::where && operand_type(0) != DType::boolean)
          fail(name + ": the condition is not boolean");
        const bool coherent = is_comparison(op) ? instruction.dtype == DType::boolean
                                                : instruction.dtype == operand_type(first);
        if (!coherent)
          fail(name + ": " + std::string(to_string(op)) + " gives another dtype than " +
               std::string(to_string(instruction.dtype)));
        break;
      }
    }
    if (tape_.streaming && !instruction.narrow &&
        after_reduction_[static_cast<std::size_t>(number)])
      fail(name + ": a streaming row has a value that depends on its own reduction");
  }

  // Returns the number of operands. Clears `all_narrow` if one of them varies along the row.
  int check_operands(std::int32_t number, bool& all_narrow) {
    const TapeInstruction& instruction = tape_.instructions[static_cast<std::size_t>(number)];
    const std::string name = "v" + std::to_string(number);
    const bool computes =
        instruction.code == TapeCode::apply || instruction.code == TapeCode::reduce;
    const int operands = computes ? info(instruction.op).inputs : 0;
    const auto most = static_cast<int>(instruction.operands.size());
    if (computes && (operands < 1 || operands > most))
      fail(name + ": " + std::string(to_string(instruction.op)) + " is no op of a tape");
    for (int i = 0; i < most; ++i) {
      const std::int32_t operand = instruction.operands[static_cast<std::size_t>(i)];
      if (i >= operands) {
        if (operand != -1) fail(name + ": too many operands");
        continue;
      }
      if (!(operand >= 0 && operand < number))
        fail(name + ": operand v" + std::to_string(operand) + " does not come before it");
      all_narrow = all_narrow && tape_.instructions[static_cast<std::size_t>(operand)].narrow;
      if (after_reduction_[static_cast<std::size_t>(operand)])
        after_reduction_[static_cast<std::size_t>(number)] = true;
    }
    return operands;
  }

  void check_argument(std::int64_t argument, std::int64_t end, const std::string& what) const {
    if (!(argument >= 0 && argument < end))
      fail(what + " " + std::to_string(argument) + " is out of range, there are " +
           std::to_string(end));
  }

  Inspection& inspection_;
  const Tape& tape_;
  const std::optional<std::pair<std::int32_t, DType>> results_;
  std::size_t outer_ = 0;  // axes that are not reduced
  Dims row_extents_;       // the extents, with rows of one point
  std::int64_t points_ = 0, rows_ = 0;
  std::vector<bool> after_reduction_;  // by instruction: the value depends on a reduction
  std::vector<bool> read_by_row_;      // by load: it gives one value per row
};

}  // namespace

void check_tape(Inspection& inspection, const Tape& tape,
                std::optional<std::pair<std::int32_t, DType>> results) {
  TapeCheck(inspection, tape, results).run();
}

void check_kernel(Inspection& inspection, const TapeKernel& kernel) {
  check_tape(inspection, kernel.tape, {});
}

}  // namespace fluxion::verification
