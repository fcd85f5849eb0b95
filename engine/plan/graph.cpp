#include "engine/plan/graph.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <deque>
#include <map>
#include <unordered_map>

#include "engine/graph/op_names.h"
#include "engine/graph/region.h"
#include "engine/graph/shape_rules.h"
#include "engine/graph/walk.h"

namespace fluxion::plan {

namespace {

// With a multiplier of splitmix64 (Steele, Lea, Flood 2014).
class Hasher {
 public:
  void add(std::uint64_t word) {
    const std::uint64_t x = hash_ ^ word, mixed = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    hash_ = (mixed ^ (mixed >> 27)) * 0x9e3779b97f4a7c15u;
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
  void add(Value value) {
    add(static_cast<std::uint64_t>(value.node.number) << 8 |
        static_cast<std::uint64_t>(value.output));
  }
  void add(const GraphNode& node) {
    add(static_cast<std::uint64_t>(node.op));
    std::visit(
        [&](const auto& attributes) {
          std::apply([&](const auto&... members) { (add(members), ...); },
                     attributes.members(attributes));
        },
        node.attributes);
    for (const Value input : node.inputs) add(input);
    for (const TensorType& type : node.outputs) add(type);
    add(static_cast<std::int64_t>(node.scalar));
  }
  std::uint64_t result() const { return hash_; }

 private:
  std::uint64_t hash_ = 0x243f6a8885a308d3u;
};

}  // namespace

bool is_literal(const GraphNode& node) {
  return info(node.op).op_class == OpClass::leaf && node.op != Op::parameter;
}

Value peel_reshapes(const Graph& graph, Value value) {
  while (graph[value].op == Op::reshape) value = graph[value].inputs[0];
  return value;
}

std::uint64_t hash(const GraphNode& node) {
  Hasher hasher;
  hasher.add(node);
  return hasher.result();
}

std::uint64_t hash(const Graph& graph) {
  Hasher hasher;
  for (const GraphNode& node : graph.nodes) hasher.add(node);
  for (const Value output : graph.outputs) hasher.add(output);
  for (const std::int32_t input : graph.donated) hasher.add(static_cast<std::int64_t>(input));
  return hasher.result();
}

void verify(const Graph& graph) {
  const auto fail = [](NodeId id, const std::string& what) {
    throw Error("graph: node " + std::to_string(id.number) + " " + what);
  };
  for (const NodeId i : graph.nodes.ids()) {
    const GraphNode& node = graph[i];
    std::vector<TensorType> types;
    for (const Value input : node.inputs) {
      if (!input.node || input.node >= i) fail(i, "uses a node that does not come before it");
      if (input.output < 0 || static_cast<std::size_t>(input.output) >= graph[input].outputs.size())
        fail(i, "uses an output that does not exist");
      types.push_back(graph.type(input));
    }
    if (info(node.op).op_class == OpClass::leaf) {
      if (!node.inputs.empty() || node.outputs.size() != 1)
        fail(i, "is a leaf with inputs or without its one output");
      if (node.op == Op::parameter) {
        const auto index =
            static_cast<std::size_t>(std::get<IndexAttributes>(node.attributes).index);
        if (index >= graph.inputs.size() || !(graph.inputs[index] == node.outputs[0]))
          fail(i, "is a parameter without an input of its type");
      }
      if (node.scalar >= graph.scalars) fail(i, "is a constant without a run-time scalar");
    } else if (infer_types(node.op, node.attributes, types, Location::current()) != node.outputs) {
      fail(i,
           "(" + std::string(to_string(node.op)) + ") has types that its shape rule does not give");
    }
  }
  for (const Value output : graph.outputs)
    if (!output.node || output.node > graph.nodes.last())
      throw Error("graph: an output names no node");
}

std::string to_string(const Graph& graph) {
  std::string text;
  const auto name = [&](Value value) {
    return "%" + std::to_string(value.node.number) +
           (graph[value].outputs.size() > 1 ? "." + std::to_string(value.output) : "");
  };
  for (const NodeId i : graph.nodes.ids()) {
    const GraphNode& node = graph[i];
    text += "%" + std::to_string(i.number) + " = " + std::string(to_string(node.op));
    for (std::size_t k = 0; k < node.inputs.size(); ++k)
      text += (k ? ", " : " ") + name(node.inputs[k]);
    const std::string attributes =
        node.scalar >= 0 ? "scalar=" + std::to_string(node.scalar) : to_string(node.attributes);
    if (!attributes.empty()) text += " {" + attributes + "}";
    text += " :";
    for (const TensorType& type : node.outputs) text += " " + to_string(type);
    text += "\n";
  }
  text += "return";
  for (std::size_t k = 0; k < graph.outputs.size(); ++k)
    text += (k ? ", " : " ") + name(graph.outputs[k]);
  return text + "\n";
}

namespace {

[[noreturn]] void throw_opaque(const Region& region) {
  throw Error("forward mode through custom_vjp " +
              (region.name.empty() ? "(without name)" : region.name) +
              ": it states a transposed derivative only, which says how cotangents flow back and "
              "not how tangents flow on. Differentiate it with grad or "
              "vjp (a Hessian product by grad of grad), or state its derivative with custom_jvp, "
              "whose transpose comes by itself");
}

// Numbers a graph of tensors. The walk enters the graph of a region in the region's place; the
// region's inputs are the values of its parameters. An explicit stack holds the graphs being
// walked, so regions may nest to any depth.
class Canonicaliser {
 public:
  explicit Canonicaliser(std::span<const Tensor> parameters) {
    for (const Tensor& parameter : parameters) add_input(parameter);
  }

  Canonical run(std::span<const Tensor> outputs) && {
    frames_.emplace_back(outputs);
    while (true) {
      Frame& frame = frames_.back();
      if (frame.next < frame.order.size()) {
        visit(frame.order[frame.next++]);  // may push a frame
        continue;
      }
      std::vector<Value> values;
      for (const Tensor& output : frame.outputs) values.push_back(value_of(output));
      if (frames_.size() == 1) {
        result_.graph.outputs = std::move(values);
        return std::move(result_);
      }
      frames_.pop_back();
      Frame& outer = frames_.back();
      outer.several[outer.order[outer.next - 1].node.get()] = std::move(values);
    }
  }

 private:
  struct Frame {
    explicit Frame(std::span<const Tensor> outputs)
        : outputs(outputs.begin(), outputs.end()),
          order(walk(outputs, [](const Node& node) { return !node.evaluated(); })) {}
    std::vector<Tensor> outputs;
    std::vector<WalkedNode> order;
    std::size_t next = 0;
    std::unordered_map<const Node*, NodeId> numbers;
    // Of the region's parameters and of regions: a value per output.
    std::unordered_map<const Node*, std::vector<Value>> several;
  };

  NodeId add_node(GraphNode node) { return result_.graph.nodes.add(std::move(node)); }

  NodeId add_input(const Tensor& tensor) {
    const auto index = static_cast<std::int64_t>(result_.inputs.size());
    result_.inputs.push_back(tensor);
    result_.graph.inputs.push_back(tensor.type());
    return bound_[{tensor.node().get(), tensor.output()}] =
               add_node({Op::parameter, IndexAttributes{index}, {}, {tensor.type()}});
  }

  // The value of a tensor in the graph that is being walked.
  Value value_of(const Tensor& tensor) {
    const Node& node = *tensor.node();
    node.require_not_donated(tensor.output());
    const Frame& frame = frames_.back();
    if (const auto found = frame.several.find(&node); found != frame.several.end())
      return found->second[static_cast<std::size_t>(tensor.output())];
    if (const auto found = bound_.find({&node, tensor.output()}); found != bound_.end())
      return {found->second, 0};
    if (const auto found = frame.numbers.find(&node); found != frame.numbers.end())
      return {found->second, tensor.output()};
    return {add_input(tensor), 0};  // an evaluated tensor
  }

  void visit(const WalkedNode& walked) {
    Frame& frame = frames_.back();
    const Node& node = *walked.node;
    if (node.op == Op::parameter) {
      if (frame.several.contains(&node) || bound_.contains({&node, 0})) return;
      if (std::get<IndexAttributes>(node.attributes).index == mapped_leaf)
        throw Error("vmap: the value of " + fluxion::to_string(node.outputs[0]) +
                    " was asked for inside the mapped function, where it stands for every example "
                    "at once; return it and read it outside");
      throw Error(
          "the value of a traced argument was asked for: while a function is traced, by compile, "
          "checkpoint or a custom rule, its arguments have types but no values; read the value "
          "outside of the function");
    }
    if (node.op == Op::constant) {
      frame.numbers[&node] =
          constant(std::get<ValueAttributes>(node.attributes).value, node.outputs[0]);
      return;
    }
    // An evaluated node: value_of() makes it an input when a user asks for it.
    if (walked.inputs.empty() && info(node.op).op_class != OpClass::leaf) return;
    if (node.op == Op::data) return;
    std::vector<Value> inputs;
    for (const Tensor& input : walked.inputs) inputs.push_back(value_of(input));
    if (node.op == Op::region) {
      enter(*std::get<RegionAttributes>(node.attributes).region, inputs);
      return;
    }
    frame.numbers[&node] = add_node({node.op, node.attributes, std::move(inputs), node.outputs});
  }

  void enter(const Region& region, const std::vector<Value>& inputs) {
    if (region.kind == Region::Kind::opaque) throw_opaque(region);
    Frame& frame = frames_.emplace_back(region.outputs);
    for (std::size_t i = 0; i < inputs.size(); ++i)
      frame.several[region.parameters[i].node().get()] = {inputs[i]};
  }

  NodeId constant(double value, const TensorType& type) {
    const bool literal = (value == 0 && !std::signbit(value)) || value == 1 || value == -1;
    const auto [found, fresh] =
        scalar_nodes_.try_emplace({std::bit_cast<std::uint64_t>(value), type.dtype});
    if (!fresh) return found->second;
    GraphNode made{Op::constant, ValueAttributes{literal ? value : 0}, {}, {type}};
    if (!literal) {
      const auto [slot, first] =
          scalar_slots_.try_emplace(std::bit_cast<std::uint64_t>(value), result_.graph.scalars);
      if (first) {
        ++result_.graph.scalars;
        result_.scalars.push_back(value);
      }
      made.scalar = slot->second;
    }
    return found->second = add_node(std::move(made));
  }

  Canonical result_;
  std::deque<Frame> frames_;
  std::map<std::pair<const Node*, int>, NodeId> bound_;  // parameters and evaluated tensors
  // Constants of equal bits share a node per dtype, and a run-time scalar.
  std::map<std::pair<std::uint64_t, DType>, NodeId> scalar_nodes_;
  std::map<std::uint64_t, std::int32_t> scalar_slots_;
};

}  // namespace

Canonical canonicalise(std::span<const Tensor> parameters, std::span<const Tensor> outputs) {
  return Canonicaliser(parameters).run(outputs);
}

}  // namespace fluxion::plan

namespace fluxion {
std::string to_string(std::span<const Tensor> tensors) {
  return to_string(plan::canonicalise({}, tensors).graph);
}
}  // namespace fluxion
