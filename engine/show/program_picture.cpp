#include "engine/show/program_picture.h"

#include <algorithm>
#include <map>

#include "engine/plan/lower.h"
#include "engine/show/markup.h"

namespace fluxion::show {

namespace {

constexpr std::size_t line_characters = 44, most_op_lines = 7;

std::string counted(std::size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

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
  std::vector<std::string> made;
  std::string line;
  for (std::size_t k = 0; k < ops.size(); ++k) {
    const std::string next = ops[k] + (k + 1 < ops.size() ? "," : "");
    if (!line.empty() && line.size() + 1 + next.size() > line_characters) {
      if (made.size() + 1 == most_op_lines) {
        line += " and " + std::to_string(ops.size() - k) + " more";
        break;
      }
      made.push_back(line);
      line.clear();
    }
    line += (line.empty() ? "" : " ") + next;
  }
  if (!line.empty()) made.push_back(line);
  lines.insert(lines.end(), made.begin(), made.end());
}

struct Describe {
  Box& box;
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
      box.lines.push_back("r" + std::to_string(term.result) + " += " +
                          buffer_name(term.lhs.buffer) + " x " + buffer_name(term.rhs.buffer));
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

Box buffer_box(const Program& program, std::int32_t number, const PictureLabels& labels) {
  const BufferSlot& slot = program.buffers[static_cast<std::size_t>(number)];
  const std::string type = to_string(slot.type) + ", " + bytes_text(slot.type.bytes());
  Box box{.lines = {buffer_name(number), type}, .kind = Kind::other, .form = Form::memory};
  const auto label = [&](const std::vector<NamedValue>& values, const char* what) {
    const auto index = static_cast<std::size_t>(slot.index);
    const bool known = index < values.size();
    box.lines[0] = known && !values[index].name.empty() ? values[index].name
                                                        : what + (" " + std::to_string(slot.index));
    if (known) box.role = values[index].role;
    box.name = buffer_name(number);
  };
  if (slot.kind == BufferKind::input) label(labels.inputs, "input"), box.form = Form::source;
  if (slot.kind == BufferKind::output) label(labels.outputs, "output"), box.form = Form::result;
  if (slot.kind == BufferKind::temporary)
    box.detail = "in the arena at " + std::to_string(slot.offset);
  return box;
}

}  // namespace

Diagram program_diagram(const Program& program, const PictureLabels& labels) {
  Diagram diagram;
  diagram.title = labels.title;
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
      if (!boxes.contains(buffer)) boxes[buffer] = add(buffer_box(program, buffer.number, labels));
    Box box{.name = "kernel " + std::to_string(k), .detail = "kernel " + std::to_string(k)};
    std::visit(Describe{box}, program.kernels[k]);
    const std::int32_t kernel = add(std::move(box));
    for (const plan::BufferId buffer : before) diagram.edges.push_back({boxes[buffer], kernel});
    for (const plan::BufferId buffer : after) {
      if (!boxes.contains(buffer)) boxes[buffer] = add(buffer_box(program, buffer.number, labels));
      diagram.edges.push_back({kernel, boxes[buffer]});
    }
  }
  return diagram;
}

}  // namespace fluxion::show
