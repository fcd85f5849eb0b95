#include "engine/plan/graph.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <unordered_map>

#include "engine/shape_rules.h"
#include "engine/walk.h"

namespace fluxion::plan {

namespace {

// Two independent 64-bit streams; the multipliers are those of splitmix64 (Steele, Lea, Flood 2014).
class Hasher {
 public:
  void add(std::uint64_t word) {
    hash_.low = mix(hash_.low ^ word, 0xbf58476d1ce4e5b9u);
    hash_.high = mix(hash_.high + word, 0x94d049bb133111ebu);
  }
  void add(std::int64_t word) { add(static_cast<std::uint64_t>(word)); }
  void add(bool value) { add(static_cast<std::uint64_t>(value)); }
  void add(double value) { add(std::bit_cast<std::uint64_t>(value)); }
  void add(DType dtype) { add(static_cast<std::uint64_t>(dtype)); }
  void add(const Dims& dims) {
    add(static_cast<std::uint64_t>(dims.size()));
    for (const std::int64_t size : dims) add(size);
  }
  void add(const TensorType& type) {
    add(type.dtype);
    add(type.shape.dims());
  }
  void add(Value value) { add(static_cast<std::uint64_t>(value.node) << 8 | static_cast<std::uint64_t>(value.output)); }
  void add(const GraphNode& node) {
    add(static_cast<std::uint64_t>(node.op));
    std::visit([&](const auto& attributes) { std::apply([&](const auto&... members) { (add(members), ...); }, attributes.members(attributes)); },
               node.attributes);
    for (const Value input : node.inputs) add(input);
    for (const TensorType& type : node.outputs) add(type);
    add(static_cast<std::int64_t>(node.scalar));
  }
  Hash128 result() const { return hash_; }

 private:
  static std::uint64_t mix(std::uint64_t x, std::uint64_t multiplier) {
    x = (x ^ (x >> 30)) * multiplier;
    return (x ^ (x >> 27)) * 0x9e3779b97f4a7c15u;
  }
  Hash128 hash_{0x243f6a8885a308d3u, 0x13198a2e03707344u};
};

}  // namespace

Hash128 hash(const GraphNode& node) {
  Hasher hasher;
  hasher.add(node);
  return hasher.result();
}

Hash128 hash(const Graph& graph) {
  Hasher hasher;
  for (const GraphNode& node : graph.nodes) hasher.add(node);
  for (const Value output : graph.outputs) hasher.add(output);
  for (const std::int32_t input : graph.donated) hasher.add(static_cast<std::int64_t>(input));
  return hasher.result();
}

void verify(const Graph& graph) {
  const auto fail = [](std::size_t index, const std::string& what) { throw Error("graph: node " + std::to_string(index) + " " + what); };
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const GraphNode& node = graph.nodes[i];
    std::vector<TensorType> types;
    for (const Value input : node.inputs) {
      if (input.node < 0 || static_cast<std::size_t>(input.node) >= i) fail(i, "uses a node that does not come before it");
      if (input.output < 0 || static_cast<std::size_t>(input.output) >= graph[input].outputs.size()) fail(i, "uses an output that does not exist");
      types.push_back(graph.type(input));
    }
    if (info(node.op).op_class == OpClass::leaf) {
      if (!node.inputs.empty() || node.outputs.size() != 1) fail(i, "is a leaf with inputs or without its one output");
      if (node.op == Op::parameter) {
        const auto index = static_cast<std::size_t>(std::get<IndexAttributes>(node.attributes).index);
        if (index >= graph.inputs.size() || !(graph.inputs[index] == node.outputs[0])) fail(i, "is a parameter that no input fits");
      }
      if (node.scalar >= graph.scalars) fail(i, "is a constant without a run-time scalar");
    } else if (infer_types(node.op, node.attributes, types, Location::current()) != node.outputs) {
      fail(i, "(" + std::string(to_string(node.op)) + ") has other types than its shape rule gives");
    }
  }
  for (const Value output : graph.outputs)
    if (output.node < 0 || static_cast<std::size_t>(output.node) >= graph.nodes.size()) throw Error("graph: an output names no node");
}

std::string to_string(const Graph& graph) {
  std::string text;
  const auto name = [&](Value value) {
    return "%" + std::to_string(value.node) + (graph[value].outputs.size() > 1 ? "." + std::to_string(value.output) : "");
  };
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const GraphNode& node = graph.nodes[i];
    text += "%" + std::to_string(i) + " = " + std::string(to_string(node.op));
    for (std::size_t k = 0; k < node.inputs.size(); ++k) text += (k ? ", " : " ") + name(node.inputs[k]);
    const std::string attributes = node.scalar >= 0 ? "scalar=" + std::to_string(node.scalar) : to_string(node.attributes);
    if (!attributes.empty()) text += " {" + attributes + "}";
    text += " :";
    for (const TensorType& type : node.outputs) text += " " + to_string(type);
    text += "\n";
  }
  text += "return";
  for (std::size_t k = 0; k < graph.outputs.size(); ++k) text += (k ? ", " : " ") + name(graph.outputs[k]);
  return text + "\n";
}

Canonical canonicalise(std::span<const Tensor> parameters, std::span<const Tensor> outputs) {
  Canonical result;
  Graph& graph = result.graph;
  std::unordered_map<const Node*, std::int32_t> numbers;                 // walked nodes
  std::map<std::pair<const Node*, int>, std::int32_t> bound;             // parameters and evaluated tensors
  std::map<std::pair<std::uint64_t, DType>, std::int32_t> scalar_nodes;  // run-time scalars with equal bits are one
  std::map<std::uint64_t, std::int32_t> scalar_slots;

  const auto add_input = [&](const Tensor& tensor) {
    const auto index = static_cast<std::int64_t>(result.inputs.size());
    result.inputs.push_back(tensor);
    graph.inputs.push_back(tensor.type());
    graph.nodes.push_back({Op::parameter, IndexAttributes{index}, {}, {tensor.type()}});
    return bound[{tensor.node().get(), tensor.output()}] = static_cast<std::int32_t>(graph.nodes.size()) - 1;
  };
  for (const Tensor& parameter : parameters) add_input(parameter);
  std::vector<const Node*> given;
  for (const Tensor& parameter : parameters) given.push_back(parameter.node().get());

  const auto number = [&](const Tensor& tensor) -> Value {
    const Node& node = *tensor.node();
    if (const auto found = bound.find({&node, tensor.output()}); found != bound.end()) return {found->second, 0};
    if (const auto found = numbers.find(&node); found != numbers.end()) return {found->second, tensor.output()};
    return {add_input(tensor), 0};
  };

  const auto order = walk(outputs, [](const Node& node) { return !node.evaluated(); });
  for (const WalkedNode& walked : order) {
    const Node& node = *walked.node;
    if (node.op == Op::parameter) {
      if (bound.contains({&node, 0})) continue;
      if (std::get<IndexAttributes>(node.attributes).index == mapped_leaf)
        throw Error("vmap: the value of " + fluxion::to_string(node.outputs[0]) +
                    " was asked for inside the mapped function, where it stands for every example at once; return it and read it outside");
      throw Error("the value of a traced argument was asked for: it has none until the compiled function is called");
    }
    if (node.op == Op::constant) {
      const double value = std::get<ValueAttributes>(node.attributes).value;
      const DType dtype = node.outputs[0].dtype;
      const bool literal = (value == 0 && !std::signbit(value)) || value == 1 || value == -1;
      const auto key = std::pair(std::bit_cast<std::uint64_t>(value), dtype);
      const auto found = scalar_nodes.find(key);
      if (found == scalar_nodes.end()) {
        GraphNode constant{Op::constant, ValueAttributes{literal ? value : 0}, {}, {node.outputs[0]}};
        if (!literal) {
          const auto [slot, fresh] = scalar_slots.try_emplace(key.first, graph.scalars);
          if (fresh) {
            ++graph.scalars;
            result.scalars.push_back(value);
          }
          constant.scalar = slot->second;
        }
        graph.nodes.push_back(std::move(constant));
        scalar_nodes[key] = static_cast<std::int32_t>(graph.nodes.size()) - 1;
      }
      numbers[&node] = scalar_nodes[key];
      continue;
    }
    if (walked.inputs.empty() && info(node.op).op_class != OpClass::leaf) continue;  // evaluated: bound by its users
    if (node.op == Op::data) continue;
    GraphNode made{node.op, node.attributes, {}, node.outputs};
    for (const Tensor& input : walked.inputs) made.inputs.push_back(number(input));
    graph.nodes.push_back(std::move(made));
    numbers[&node] = static_cast<std::int32_t>(graph.nodes.size()) - 1;
  }
  for (const Tensor& output : outputs) graph.outputs.push_back(number(output));
  return result;
}

}  // namespace fluxion::plan

namespace fluxion {
std::string to_string(std::span<const Tensor> tensors) { return to_string(plan::canonicalise({}, tensors).graph); }
}  // namespace fluxion
