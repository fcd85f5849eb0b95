// Programs as text, in the manner of an assembly listing:
//
//   kernel 1: rows [64 | 128]
//     v0  f32      load   b0[128*i0 + i1]
//     v1  f32 row  max    v0
//     v2  f32      sub    v0, v1
//                  store  b2[128*i0 + i1] <- v2
//
// i0, i1, .. run over the iteration space, outermost first; the axes after the bar form the row. A
// value marked "row" has one element per row.
#include <algorithm>
#include <string_view>

#include "engine/program/program.h"

namespace fluxion {
namespace {

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

std::string buffer_name(std::int32_t buffer) { return "b" + std::to_string(buffer); }
std::string value_name(std::int32_t value) { return "v" + std::to_string(value); }

// "3*i0 + i1 - 2", "0"
std::string text_of(const Affine& affine) {
  std::string text;
  const auto add = [&](std::int64_t factor, const std::string& symbol) {
    if (factor == 0) return;
    const bool negative = factor < 0;
    text += text.empty() ? (negative ? "-" : "") : (negative ? " - " : " + ");
    const std::string magnitude = std::to_string(negative ? -static_cast<std::uint64_t>(factor)
                                                          : static_cast<std::uint64_t>(factor));
    if (symbol.empty())
      text += magnitude;
    else
      text += magnitude == "1" ? symbol : magnitude + "*" + symbol;
  };
  for (std::size_t axis = 0; axis < affine.coefficients.size(); ++axis)
    add(affine.coefficients[axis], "i" + std::to_string(axis));
  add(affine.constant, "");
  return text.empty() ? "0" : text;
}

std::string text_of(const AffineRange& range) {
  return std::to_string(range.low) + " <= " + text_of(range.index) + " < " +
         std::to_string(range.high);
}

std::string element(std::int32_t buffer, const Affine& address) {
  return buffer_name(buffer) + "[" + text_of(address) + "]";
}

// "[64, 32]", "[64 | 128]"
std::string space(const Tape& tape) {
  std::string text = "[";
  const auto outer = static_cast<std::int64_t>(tape.extents.size()) - tape.reduced_axes;
  for (std::size_t axis = 0; axis < tape.extents.size(); ++axis) {
    if (static_cast<std::int64_t>(axis) == outer)
      text += axis == 0 ? "| " : " | ";
    else if (axis > 0)
      text += ", ";
    text += std::to_string(tape.extents[axis]);
  }
  return text + "]";
}

std::string header(const Tape& tape) {
  if (tape.reduced_axes == 0) return "map " + space(tape);
  return "rows " + space(tape) + (tape.streaming ? " streaming" : "");
}

// What an instruction does, without its operands.
std::string mnemonic(const TapeInstruction& instruction) {
  switch (instruction.code) {
    case TapeCode::load:
      return "load";
    case TapeCode::scalar:
      return "scalar";
    case TapeCode::literal:
      return "literal";
    case TapeCode::index:
      return "index";
    case TapeCode::in_range:
      return "within";
    case TapeCode::result:
      return "result";
    case TapeCode::apply:
    case TapeCode::reduce:
      return std::string(to_string(instruction.op));
  }
  return "?";
}

template <class T>
const T* at(const std::vector<T>& items, std::int32_t index) {
  return index >= 0 && static_cast<std::size_t>(index) < items.size()
             ? &items[static_cast<std::size_t>(index)]
             : nullptr;
}

std::string load_text(const TapeLoad& load, const std::vector<BufferSlot>& buffers) {
  std::string text = element(load.buffer, load.address);
  const BufferSlot* slot = at(buffers, load.buffer);
  if (!slot || slot->type.dtype != load.dtype) text += " as " + std::string(to_string(load.dtype));
  for (std::size_t i = 0; i < load.guards.size(); ++i)
    text += (i == 0 ? " where " : " and ") + text_of(load.guards[i].range);
  return text;
}

std::string operands(const TapeInstruction& instruction, const Tape& tape,
                     const std::vector<BufferSlot>& buffers) {
  const std::int32_t argument = instruction.argument;
  switch (instruction.code) {
    case TapeCode::load: {
      const TapeLoad* load = at(tape.loads, argument);
      return load ? load_text(*load, buffers) : "?";
    }
    case TapeCode::scalar:
      return "s" + std::to_string(argument);
    case TapeCode::literal:
      return std::to_string(argument);
    case TapeCode::index: {
      const Affine* index = at(tape.indices, argument);
      return index ? text_of(*index) : "?";
    }
    case TapeCode::in_range: {
      const AffineRange* range = at(tape.ranges, argument);
      return range ? text_of(*range) : "?";
    }
    case TapeCode::result:
      return "r" + std::to_string(argument);
    case TapeCode::apply:
    case TapeCode::reduce:
      break;
  }
  std::string text;
  for (const std::int32_t operand : instruction.operands)
    if (operand >= 0) text += (text.empty() ? "" : ", ") + value_name(operand);
  return text;
}

// Instructions and stores in columns: number, type, operation, operands.
std::string listing(const Tape& tape, const std::vector<BufferSlot>& buffers,
                    const std::string& indent) {
  std::size_t name_width = 2, mnemonic_width = 5;
  const bool any_narrow = std::any_of(tape.instructions.begin(), tape.instructions.end(),
                                      [](const auto& each) { return each.narrow; });
  const std::size_t type_width = any_narrow ? 8 : 4;
  if (!tape.instructions.empty())
    name_width = value_name(static_cast<std::int32_t>(tape.instructions.size()) - 1).size();
  for (const TapeInstruction& instruction : tape.instructions)
    mnemonic_width = std::max(mnemonic_width, mnemonic(instruction).size());

  std::string text;
  for (std::size_t i = 0; i < tape.instructions.size(); ++i) {
    const TapeInstruction& instruction = tape.instructions[i];
    const std::string type =
        std::string(to_string(instruction.dtype)) + (instruction.narrow ? " row" : "");
    text += indent + padded(value_name(static_cast<std::int32_t>(i)), name_width) + "  " +
            padded(type, type_width) + "  " + padded(mnemonic(instruction), mnemonic_width) + "  " +
            operands(instruction, tape, buffers) + "\n";
  }
  for (const TapeStore& store : tape.stores) {
    text += indent + std::string(name_width + 2 + type_width + 2, ' ') +
            padded("store", mnemonic_width) + "  " + element(store.buffer, store.address);
    const BufferSlot* slot = at(buffers, store.buffer);
    if (!slot || slot->type.dtype != store.dtype)
      text += " as " + std::string(to_string(store.dtype));
    text += " <- " + value_name(store.value) + "\n";
  }
  return text;
}

// "64:32", "8:64 x 4:1"; "1" for an axis without digits.
std::string text_of(const OperandAxis& axis) {
  std::string text;
  for (std::size_t digit = 0; digit < axis.sizes.size(); ++digit) {
    if (digit > 0) text += " x ";
    text += std::to_string(axis.sizes[digit]) + ":" +
            (digit < axis.strides.size() ? std::to_string(axis.strides[digit]) : "?");
  }
  return text.empty() ? "1" : text;
}

std::string text_of(const ContractOperand& operand) {
  std::string text = buffer_name(operand.buffer);
  if (operand.offset != 0) text += " + " + std::to_string(operand.offset);
  return text + " (batch " + text_of(operand.batch) + ", rows " + text_of(operand.rows) +
         ", columns " + text_of(operand.columns) + ")";
}

std::string text_of(const TapeKernel& kernel, const std::vector<BufferSlot>& buffers) {
  return header(kernel.tape) + "\n" + listing(kernel.tape, buffers, "  ");
}

std::string text_of(const ContractKernel& kernel, const std::vector<BufferSlot>& buffers) {
  std::string dtypes(to_string(kernel.accumulate));
  if (kernel.lhs != kernel.accumulate || kernel.rhs != kernel.accumulate)
    dtypes = std::string(to_string(kernel.lhs)) + " x " + std::string(to_string(kernel.rhs)) +
             " -> " + dtypes;
  std::string text = "contract " + dtypes + ", batch " + std::to_string(kernel.batch) + ", " +
                     std::to_string(kernel.m) + " x " + std::to_string(kernel.k) + " x " +
                     std::to_string(kernel.n) + "\n";
  for (const ContractTerm& term : kernel.terms) {
    text += "  r" + std::to_string(term.result) + " += " + text_of(term.lhs) + "\n";
    text += padded("", 5 + std::to_string(term.result).size()) + "x " + text_of(term.rhs) + "\n";
  }
  return text + "  epilogue " + space(kernel.epilogue) + "\n" +
         listing(kernel.epilogue, buffers, "    ");
}

std::string text_of(const OpKernel& kernel, const std::vector<BufferSlot>&) {
  const auto list = [](const std::vector<std::int32_t>& numbers,
                       const std::vector<TensorType>& types) {
    std::string text;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      text += (i > 0 ? ", " : "") + buffer_name(numbers[i]) + " ";
      text += i < types.size() ? to_string(types[i]) : "?";
    }
    return text;
  };
  const std::string attributes = to_string(kernel.attributes);
  std::string views;
  for (const ContractOperand& view : kernel.views) views += "  " + text_of(view) + "\n";
  return "op " + std::string(to_string(kernel.op)) + (attributes.empty() ? "" : " " + attributes) +
         "\n  " + list(kernel.outputs, kernel.output_types) + " <- " +
         list(kernel.inputs, kernel.input_types) + "\n" + views;
}

std::string place(const BufferSlot& slot) {
  switch (slot.kind) {
    case BufferKind::input:
      return "input " + std::to_string(slot.index);
    case BufferKind::output:
      return "output " + std::to_string(slot.index);
    case BufferKind::temporary:
      return "at " + std::to_string(slot.offset);
  }
  return "?";
}

std::string counted(std::size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

}  // namespace

std::string to_string(const Tape& tape, const std::vector<BufferSlot>& buffers) {
  return header(tape) + "\n" + listing(tape, buffers, "  ");
}

std::string to_string(const Program& program) {
  std::string text = "program: " + counted(program.inputs.size(), "input") + ", " +
                     counted(program.outputs.size(), "output") + ", " +
                     counted(program.kernels.size(), "kernel");
  if (program.scalars > 0)
    text += ", " + counted(static_cast<std::size_t>(program.scalars), "scalar");
  text += ", arena " + counted(static_cast<std::size_t>(program.arena_bytes), "byte") + "\n";

  std::size_t place_width = 0;
  for (const BufferSlot& slot : program.buffers)
    place_width = std::max(place_width, place(slot).size());
  const std::size_t name_width =
      program.buffers.empty()
          ? 0
          : buffer_name(static_cast<std::int32_t>(program.buffers.size()) - 1).size();
  for (std::size_t number = 0; number < program.buffers.size(); ++number) {
    const BufferSlot& slot = program.buffers[number];
    text += "  " + padded(buffer_name(static_cast<std::int32_t>(number)), name_width) + "  " +
            padded(place(slot), place_width) + "  " + to_string(slot.type);
    if (slot.kind == BufferKind::output) {
      const bool known =
          slot.index >= 0 && static_cast<std::size_t>(slot.index) < program.donations.size();
      const std::int32_t donor =
          known ? program.donations[static_cast<std::size_t>(slot.index)] : -1;
      if (donor >= 0) text += "  takes over input " + std::to_string(donor);
    }
    text += "\n";
  }

  for (std::size_t number = 0; number < program.kernels.size(); ++number) {
    const bool commits = std::any_of(program.donations.begin(), program.donations.end(),
                                     [](std::int32_t donor) { return donor >= 0; });
    if (commits && static_cast<std::size_t>(program.commit_point) == number) text += "commit\n";
    text += "kernel " + std::to_string(number) + ": " +
            std::visit([&](const auto& kernel) { return text_of(kernel, program.buffers); },
                       program.kernels[number]);
  }
  return text;
}

}  // namespace fluxion
