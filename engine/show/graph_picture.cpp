#include "engine/show/graph_picture.h"

#include <algorithm>
#include <array>
#include <optional>

#include "engine/graph/op_names.h"
#include "engine/number_text.h"
#include "engine/show/markup.h"

namespace fluxion::show {

namespace {

std::size_t node_index(std::int32_t index) { return static_cast<std::size_t>(index); }

std::string short_text(double value) { return rounded_text(value, 6); }

// Cuts numbers to four digits after the point, so that a heading fits.
std::string rounded_down(const std::string& text) {
  std::string result;
  std::size_t digits = 0;  // behind a point, so far
  bool fraction = false;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    fraction = c == '.' || (fraction && digit);
    digits = fraction && digit ? digits + 1 : 0;
    if (digits <= 4) result += c;
  }
  return result;
}

std::optional<std::size_t> input_index(const plan::GraphNode& node) {
  if (node.op != Op::parameter) return std::nullopt;
  return static_cast<std::size_t>(std::get<IndexAttributes>(node.attributes).index);
}

std::string types_text(const plan::GraphNode& node) {
  std::string text;
  for (const TensorType& type : node.outputs) text += (text.empty() ? "" : ", ") + to_string(type);
  return text;
}

// The first line of a box: a number, an argument's name, or the op with the attributes that its
// type does not show.
std::string heading(const plan::GraphNode& node, const PictureLabels& labels) {
  if (const auto input = input_index(node)) return name_of(labels.inputs, *input, "input");
  if (node.op == Op::constant) {
    if (node.scalar < 0) return short_text(std::get<ValueAttributes>(node.attributes).value);
    return node_index(node.scalar) < labels.scalars.size()
               ? short_text(labels.scalars[node_index(node.scalar)])
               : "scalar " + std::to_string(node.scalar);
  }
  const std::string op(to_string(node.op));
  if (node.op == Op::reshape || node.op == Op::broadcast_to || node.op == Op::convert) return op;
  const std::string attributes = to_string(node.attributes);
  return attributes.empty() ? op : op + " " + shortened(rounded_down(attributes), 26);
}

std::string value_name(const plan::Graph& graph, plan::Value value) {
  return "%" + std::to_string(value.node.number) +
         (graph[value].outputs.size() > 1 ? "." + std::to_string(value.output) : "");
}

// The line of to_string(graph) for this node.
std::string detail(const plan::Graph& graph, std::size_t index) {
  const plan::GraphNode& node = graph[plan::NodeId(static_cast<std::int64_t>(index))];
  std::string text = "%" + std::to_string(index) + " = " + std::string(to_string(node.op));
  for (std::size_t k = 0; k < node.inputs.size(); ++k)
    text += (k ? ", " : " ") + value_name(graph, node.inputs[k]);
  const std::string attributes =
      node.scalar >= 0 ? "scalar=" + std::to_string(node.scalar) : to_string(node.attributes);
  if (!attributes.empty()) text += " {" + shortened(attributes, 200) + "}";
  return text + " : " + types_text(node);
}

}  // namespace

std::string name_of(const std::vector<NamedValue>& names, std::size_t index, const char* what) {
  if (index < names.size() && !names[index].name.empty()) return names[index].name;
  return std::string(what) + " " + std::to_string(index);
}

std::string layer_of(const std::string& name) {
  const std::size_t dot = name.find_last_of('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

Kind kind_of(OpClass op_class) {
  switch (op_class) {
    case OpClass::leaf:
      return Kind::leaf;
    case OpClass::elementwise:
      return Kind::elementwise;
    case OpClass::movement:
      return Kind::movement;
    case OpClass::reduction:
      return Kind::reduction;
    case OpClass::contraction:
      return Kind::contraction;
    case OpClass::index:
      return Kind::index;
    case OpClass::random:
      return Kind::random;
    case OpClass::fused:
      return Kind::fused;
    default:
      return Kind::other;
  }
}

std::vector<Role> roles(const plan::Graph& graph, const PictureLabels& labels) {
  const std::size_t count = graph.nodes.size();
  std::vector<std::optional<Role>> stated(count);
  for (std::size_t k = 0; k < graph.outputs.size(); ++k)
    if (k < labels.outputs.size() && graph[graph.outputs[k]].op != Op::parameter)
      stated[graph.outputs[k].node.index()] = labels.outputs[k].role;

  std::vector<Role> roles(count, Role::coefficient);
  std::vector<bool> varies(count, false);  // depends on an input
  for (std::size_t i = 0; i < count; ++i) {
    const plan::GraphNode& node = graph[plan::NodeId(static_cast<std::int64_t>(i))];
    if (const auto input = input_index(node)) {
      roles[i] = *input < labels.inputs.size() ? labels.inputs[*input].role : Role::primal;
      varies[i] = true;
    }
    for (const plan::Value input : node.inputs) {
      const Role role = roles[input.node.index()];
      if (role == Role::tangent || role == Role::cotangent) roles[i] = std::max(roles[i], role);
      varies[i] = varies[i] || varies[input.node.index()];
    }
    if (stated[i]) roles[i] = *stated[i];
  }
  for (const plan::Value output : graph.outputs)
    if (roles[output.node.index()] == Role::coefficient) roles[output.node.index()] = Role::primal;
  // The inputs of a primal value are primal, unless they have a role already.
  for (std::size_t i = count; i-- > 0;)
    if (roles[i] == Role::primal)
      for (const plan::Value input : graph[plan::NodeId(static_cast<std::int64_t>(i))].inputs)
        if (roles[input.node.index()] == Role::coefficient)
          roles[input.node.index()] = Role::primal;
  // A constant takes the first role that one of its users has.
  std::vector<std::optional<Role>> wanted(count);
  for (std::size_t i = count; i-- > 0;) {
    if (!varies[i] && !stated[i] && wanted[i]) roles[i] = *wanted[i];
    for (const plan::Value input : graph[plan::NodeId(static_cast<std::int64_t>(i))].inputs) {
      auto& role = wanted[input.node.index()];
      role = role ? std::min(*role, roles[i]) : roles[i];
    }
  }
  return roles;
}

Diagram graph_diagram(const plan::Graph& graph, const PictureLabels& labels) {
  Diagram diagram;
  diagram.title = labels.title;
  const std::vector<Role> roles = show::roles(graph, labels);
  std::array<bool, role_count> present{};
  std::vector<std::int32_t> boxes(graph.nodes.size(),
                                  -1);  // of nodes; a constant's that nobody points at yet
  const auto add = [&](Box box) {
    present[static_cast<std::size_t>(*box.role)] = true;
    diagram.boxes.push_back(std::move(box));
    return static_cast<std::int32_t>(diagram.boxes.size()) - 1;
  };
  const auto node_box = [&](std::int32_t i, Role role) {
    const plan::GraphNode& node = graph[plan::NodeId(i)];
    Box box{.lines = {heading(node, labels)},
            .name = "%" + std::to_string(i),
            .detail = detail(graph, node_index(i)),
            .role = role};
    box.type = shortened(types_text(node), 48);
    if (node.op != Op::constant) box.lines.push_back(box.type);
    // Where a tangent ends must be seen.
    box.apart =
        node.op == Op::stop_gradient && roles[node.inputs.front().node.index()] == Role::tangent;
    box.kind = kind_of(info(node.op).op_class);
    if (node.op == Op::parameter) box.form = Form::source;
    return box;
  };
  const auto take = [&](std::int32_t node, Role user) {
    const std::int32_t box = boxes[node_index(node)];
    if (graph[plan::NodeId(node)].op != Op::constant) return box;
    boxes[node_index(node)] = -1;
    return box >= 0 ? box : add(node_box(node, user));
  };
  const auto connect = [&](const std::vector<std::int32_t>& from, std::int32_t to) {
    for (const std::int32_t box : from) diagram.edges.push_back({box, to});
  };
  for (std::int32_t i = 0; node_index(i) < graph.nodes.size(); ++i) {
    std::vector<std::int32_t> inputs;
    for (const plan::Value input : graph[plan::NodeId(i)].inputs)
      inputs.push_back(take(input.node.number, roles[node_index(i)]));
    boxes[node_index(i)] = add(node_box(i, roles[node_index(i)]));
    connect(inputs, boxes[node_index(i)]);
  }
  for (std::size_t k = 0; k < graph.outputs.size(); ++k) {
    const plan::Value value = graph.outputs[k];
    const Role role =
        k < labels.outputs.size() ? labels.outputs[k].role : roles[value.node.index()];
    const std::int32_t from = take(value.node.number, role);
    connect({from}, add({.lines = {name_of(labels.outputs, k, "output")},
                         .detail = "output " + std::to_string(k) + ": " + value_name(graph, value),
                         .type = to_string(graph.type(value)),
                         .role = role,
                         .form = Form::result}));
  }
  // A single column needs no heading.
  diagram.columns_by_role = std::count(present.begin(), present.end(), true) > 1;
  return diagram;
}

}  // namespace fluxion::show
