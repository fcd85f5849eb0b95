#include "engine/show/program_picture.h"

#include <algorithm>
#include <map>

#include "engine/plan/tape_edit.h"
#include "engine/show/markup.h"

namespace fluxion::show {

namespace {

constexpr std::size_t line_characters = 44, most_op_lines = 7;

std::string buffer_name(std::int32_t buffer) { return "b" + std::to_string(buffer); }

// "[64, 49 | 128]": the axes after the bar form the row.
std::string space(const Tape& tape) {
  std::string text = "[";
  const std::size_t outer = tape.extents.size() - static_cast<std::size_t>(tape.reduced_axes);
  for (std::size_t axis = 0; axis < tape.extents.size(); ++axis) {
    if (axis > 0) text += axis == outer ? " " : ", ";
    if (axis == outer) text += "| ";
    text += std::to_string(tape.extents[axis]);
  }
  return text + "]";
}

// The ops of a tape in order, as lines of text: "sub, exp, row sum, div". Leaves out loads,
// literals and other instructions that compute nothing.
void add_ops(const Tape& tape, std::vector<std::string>& lines) {
  std::vector<std::string> ops;
  for (const TapeInstruction& instruction : tape.instructions) {
    if (instruction.code == TapeCode::apply) ops.emplace_back(to_string(instruction.op));
    if (instruction.code == TapeCode::reduce)
      ops.push_back("row " + std::string(to_string(instruction.op)));
  }
  const std::vector<std::string> made = wrapped(ops, line_characters, most_op_lines);
  lines.insert(lines.end(), made.begin(), made.end());
}

// "add" where that made the value; of one that was only loaded "copy".
std::string maker(const Tape& tape, std::int32_t value) {
  const TapeInstruction& instruction = tape.instructions[static_cast<std::size_t>(value)];
  switch (instruction.code) {
    case TapeCode::apply:
      return std::string(to_string(instruction.op));
    case TapeCode::reduce:
      return "row " + std::string(to_string(instruction.op));
    case TapeCode::result:
      return "matmul";
    case TapeCode::load:
      return "copy";
    default:
      return "fill";
  }
}

// Calls f with each buffer that a kernel writes and what makes it.
template <class F>
void for_makers(const Kernel& kernel, const F& f) {
  const auto stores = [&](const Tape& tape) {
    for (const TapeStore& store : tape.stores) f(store.buffer, maker(tape, store.value));
  };
  if (const auto* map = std::get_if<TapeKernel>(&kernel)) stores(map->tape);
  if (const auto* product = std::get_if<ContractKernel>(&kernel)) stores(product->epilogue);
  if (const auto* op = std::get_if<OpKernel>(&kernel))
    for (std::size_t k = 0; k < op->outputs.size(); ++k)
      f(op->outputs[k],
        std::string(to_string(op->op)) + (op->outputs.size() > 1 ? "." + std::to_string(k) : ""));
}

struct Describe {
  Box& box;
  const std::vector<std::string>& names;
  const Program& program;
  // An argument by its name, a temporary by its number, which its box has, too.
  std::string operand(std::int32_t buffer) const {
    const auto index = static_cast<std::size_t>(buffer);
    return program.buffers[index].kind == BufferKind::temporary ? buffer_name(buffer)
                                                                : names[index];
  }
  void operator()(const TapeKernel& kernel) const {
    const bool rows = kernel.tape.reduced_axes > 0;
    box.kind = rows ? Kind::reduction : Kind::elementwise;
    box.lines.push_back((rows ? "rows " : "map ") + space(kernel.tape));
    add_ops(kernel.tape, box.lines);
    if (box.lines.size() == 1) box.lines.push_back("copy");
  }
  void operator()(const ContractKernel& kernel) const {
    box.kind = Kind::contraction;
    box.lines.push_back("matmul " +
                        (kernel.batch == 1 ? "" : std::to_string(kernel.batch) + " x ") + "[" +
                        std::to_string(kernel.m) + ", " + std::to_string(kernel.k) + "] [" +
                        std::to_string(kernel.k) + ", " + std::to_string(kernel.n) + "]");
    for (const ContractTerm& term : kernel.terms)
      box.lines.push_back("r" + std::to_string(term.result) + " += " + operand(term.lhs.buffer) +
                          " x " + operand(term.rhs.buffer));
    const std::size_t before = box.lines.size();
    add_ops(kernel.epilogue, box.lines);
    if (box.lines.size() > before) box.lines[before] = "then " + box.lines[before];
  }
  void operator()(const OpKernel& kernel) const {
    box.kind = kind_of(info(kernel.op).op_class);
    box.lines.emplace_back(to_string(kernel.op));
    const std::string attributes = to_string(kernel.attributes);
    if (!attributes.empty()) box.lines.push_back(shortened(attributes, line_characters));
  }
};

Box buffer_box(const Program& program, std::int32_t number, const std::vector<std::string>& names,
               const PictureLabels& labels) {
  const auto index = static_cast<std::size_t>(number);
  const BufferSlot& slot = program.buffers[index];
  Box box{.lines = {names[index], to_string(slot.type) + ", " + bytes_text(slot.type.bytes())},
          .name = buffer_name(number),
          .type = to_string(slot.type),
          .kind = Kind::other,
          .form = Form::memory};
  const auto label = [&](const std::vector<NamedValue>& values, Form form) {
    box.form = form;
    const auto place = static_cast<std::size_t>(slot.index);
    if (place < values.size()) box.role = values[place].role;
  };
  if (slot.kind == BufferKind::input) label(labels.inputs, Form::source);
  if (slot.kind == BufferKind::output) label(labels.outputs, Form::result);
  if (slot.kind == BufferKind::temporary)
    box.detail = buffer_name(number) + ", " + names[index] + ": " + box.lines[1] +
                 ", in the arena at " + std::to_string(slot.offset);
  return box;
}

}  // namespace

std::vector<std::string> buffer_names(const Program& program, const PictureLabels& labels) {
  std::vector<std::string> names(program.buffers.size());
  for (std::size_t b = 0; b < names.size(); ++b) {
    const BufferSlot& slot = program.buffers[b];
    const auto index = static_cast<std::size_t>(slot.index);
    if (slot.kind == BufferKind::input) names[b] = name_of(labels.inputs, index, "input");
    if (slot.kind == BufferKind::output) names[b] = name_of(labels.outputs, index, "output");
  }
  for (const Kernel& kernel : program.kernels) {
    std::string layer;
    if (const auto* product = std::get_if<ContractKernel>(&kernel))
      for (const ContractTerm& term : product->terms)
        for (const std::int32_t operand : {term.lhs.buffer, term.rhs.buffer})
          if (const auto b = static_cast<std::size_t>(operand);
              layer.empty() && program.buffers[b].kind == BufferKind::input)
            layer = layer_of(names[b]);
    for_makers(kernel, [&](std::int32_t buffer, const std::string& op) {
      std::string& name = names[static_cast<std::size_t>(buffer)];
      if (name.empty()) name = (layer.empty() ? "" : layer + " ") + op;
    });
  }
  return names;
}

Diagram program_diagram(const Program& program, const PictureLabels& labels) {
  Diagram diagram;
  diagram.title = labels.title;
  diagram.noun = "kernel";
  const std::vector<std::string> names = buffer_names(program, labels);
  std::int64_t outside = 0;
  for (const TensorType& type : program.inputs) outside += static_cast<std::int64_t>(type.bytes());
  for (const TensorType& type : program.outputs) outside += static_cast<std::int64_t>(type.bytes());
  diagram.note = counted(program.kernels.size(), "kernel") + ", inputs and outputs " +
                 bytes_text(static_cast<std::uint64_t>(outside)) + ", arena " +
                 bytes_text(static_cast<std::uint64_t>(program.arena_bytes));

  std::map<plan::BufferId, std::int32_t> boxes;  // of buffers seen so far
  const auto add = [&](Box box) {
    diagram.boxes.push_back(std::move(box));
    return static_cast<std::int32_t>(diagram.boxes.size()) - 1;
  };
  for (std::size_t k = 0; k < program.kernels.size(); ++k) {
    std::vector<plan::BufferId> before = plan::reads(program.kernels[k]), after;
    for (const plan::BufferId buffer : plan::writes(program.kernels[k]))
      (boxes.contains(buffer) ? before : after).push_back(buffer);
    for (const plan::BufferId buffer : before)
      if (!boxes.contains(buffer))
        boxes[buffer] = add(buffer_box(program, buffer.number, names, labels));
    Box box{.name = "kernel " + std::to_string(k), .detail = "kernel " + std::to_string(k)};
    std::visit(Describe{box, names, program}, program.kernels[k]);
    const std::int32_t kernel = add(std::move(box));
    for (const plan::BufferId buffer : before) diagram.edges.push_back({boxes[buffer], kernel});
    for (const plan::BufferId buffer : after) {
      if (!boxes.contains(buffer))
        boxes[buffer] = add(buffer_box(program, buffer.number, names, labels));
      diagram.edges.push_back({kernel, boxes[buffer]});
    }
  }
  return diagram;
}

}  // namespace fluxion::show
