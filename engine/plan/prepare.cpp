#include "engine/plan/prepare.h"

#include <algorithm>
#include <set>

#include "engine/graph/op_names.h"
#include "engine/plan/split.h"
#include "engine/plan/steps.h"
#include "engine/plan/view.h"

namespace fluxion::plan {

namespace {

// Whether a value is an input, or is written by a kernel.
bool lies_in_memory(const Graph& graph, Value value) {
  const GraphNode& node = graph[value];
  return node.op == Op::parameter ||
         (info(node.op).op_class != OpClass::leaf && info(node.op).op_class != OpClass::movement);
}

// Whether contractions and attention can read a value: any view of memory except one with holes
// (pad), several sources (concat) or negative strides (flip).
bool readable_by_contraction(const Graph& graph, Value value) {
  while (info(graph[value].op).op_class == OpClass::movement) {
    const Op op = graph[value].op;
    if (op == Op::pad || op == Op::concat || op == Op::flip) return false;
    value = graph[value].inputs[0];
  }
  return lies_in_memory(graph, value);
}

}  // namespace

Graph prepare(const Graph& graph, const KernelLimits& limits, Cuts& cuts) {
  // Each piece of a concat takes a load, a buffer and, except the first, a test and a choice.
  const auto max_loads = static_cast<std::size_t>(limits.max_loads);
  const auto max_pieces = static_cast<std::size_t>(std::max(
      2, std::min({limits.max_loads / 2, limits.max_buffers - 1, limits.max_instructions / 3})));
  std::set<NodeId> stored;  // of the result
  Graph result;
  result.inputs = graph.inputs;
  result.donated = graph.donated;
  result.scalars = graph.scalars;
  Indexed<NodeId, NodeId> moved(graph.nodes.size());
  // Per node of the result: the number of paths down to memory through movement ops. A kernel that
  // reads the node through its views has a load for each path. Shared pieces make the number grow
  // exponentially, and so the work of finding out whether they fold.
  Indexed<NodeId, std::size_t> ways;
  const auto ways_of = [&](NodeId n) {
    while (ways.last() < n) {
      const GraphNode& node = result[NodeId(std::ssize(ways))];
      const bool moves = info(node.op).op_class == OpClass::movement;
      std::size_t sum = moves ? 0 : 1;
      if (moves)
        for (const Value input : node.inputs) sum += ways[input.node];
      ways.add(sum);
    }
    return ways[n];
  };
  const auto copy = [&](Value value) {
    return Value{result.nodes.add({Op::identity, NoAttributes{}, {value}, {result.type(value)}}),
                 0};
  };
  const auto move = [&](Value value) { return Value{moved[value.node], value.output}; };
  for (const NodeId n : graph.nodes.ids()) {
    GraphNode node = graph[n];
    const OpClass op_class = info(node.op).op_class;
    for (std::size_t k = 0; k < node.inputs.size(); ++k) {
      Value& input = node.inputs[k];
      input = move(input);
      const bool forced = cuts.copied.contains({n, static_cast<std::int32_t>(k)});
      const bool must = forced ||
                        ((op_class == OpClass::contraction || op_class == OpClass::fused) &&
                         !readable_by_contraction(result, input)) ||
                        // Overlapping windows: copy the source once, not every window.
                        (node.op == Op::windows && !readable_by_contraction(result, input)) ||
                        (is_whole(op_class) && op_class != OpClass::fused &&
                         !lies_in_memory(result, peel_reshapes(result, input)));
      if (must) input = copy(input);
      if (forced) stored.insert(input.node);
    }
    if (const auto found = cuts.stepped.find(n); found != cuts.stepped.end()) {
      moved[n] = append_steps(result, node, found->second, limits, stored);
      continue;
    }
    // A concat of more pieces than that joins them in parts first.
    while (node.op == Op::concat && node.inputs.size() > max_pieces) {
      const std::int64_t axis = std::get<AxisAttributes>(node.attributes).axis;
      std::vector<Value> parts;
      for (std::size_t begin = 0; begin < node.inputs.size(); begin += max_pieces) {
        const std::size_t end = std::min(begin + max_pieces, node.inputs.size());
        GraphNode part{Op::concat,
                       node.attributes,
                       {node.inputs.begin() + static_cast<std::ptrdiff_t>(begin),
                        node.inputs.begin() + static_cast<std::ptrdiff_t>(end)},
                       node.outputs};
        std::int64_t& size = part.outputs[0].shape[axis];
        size = 0;
        for (const Value input : part.inputs) size += result.type(input).shape[axis];
        parts.push_back(copy({result.nodes.add(std::move(part)), 0}));
      }
      node.inputs = std::move(parts);
    }
    const NodeId last = result.nodes.add(node);
    if (op_class == OpClass::movement && (ways_of(last) > max_loads || !folds(result, {last, 0}))) {
      result.nodes.remove_last();
      ways.remove_last();
      for (Value& input : node.inputs)
        if (!lies_in_memory(result, input)) input = copy(input);
      result.nodes.add(std::move(node));
    }
    moved[n] = result.nodes.last();
  }
  for (const Value output : graph.outputs) {
    Value value = peel_reshapes(result, move(output));
    result.outputs.push_back(lies_in_memory(result, value) ? value : copy(value));
  }
  for (const NodeId node : cuts.stored) stored.insert(moved[node]);
  cuts = {std::move(stored), {}, {}};
  return result;
}

}  // namespace fluxion::plan
