// A dual op computes its primal's outputs besides their tangents: where a plan has both on the same
// operands, the dual serves for both.
#include <functional>
#include <optional>
#include <queue>
#include <utility>

#include "engine/plan/graph.h"

namespace fluxion::plan {

namespace {

// Whether node `from` is an operand of node `to`, or an operand's operand, ...
bool reaches(const Graph& graph, std::int32_t from, std::int32_t to) {
  std::vector<bool> seen(static_cast<std::size_t>(to) + 1, false);
  std::vector<std::int32_t> pending{to};
  while (!pending.empty()) {
    const std::int32_t node = pending.back();
    pending.pop_back();
    if (node == from) return true;
    for (const Value input : graph.nodes[static_cast<std::size_t>(node)].inputs) {
      // Operands have lower numbers: what lies below `from` can't lead to it.
      if (input.node < from || seen[static_cast<std::size_t>(input.node)]) continue;
      seen[static_cast<std::size_t>(input.node)] = true;
      pending.push_back(input.node);
    }
  }
  return false;
}

// The nodes in an order with inputs before users, as close to the given one as possible.
Graph sorted(Graph graph) {
  const std::size_t count = graph.nodes.size();
  std::vector<std::int32_t> waiting(count, 0), moved(count, -1);
  std::vector<std::vector<std::int32_t>> users(count);
  std::priority_queue<std::int32_t, std::vector<std::int32_t>, std::greater<>> ready;
  for (std::size_t i = 0; i < count; ++i) {
    for (const Value input : graph.nodes[i].inputs)
      users[static_cast<std::size_t>(input.node)].push_back(static_cast<std::int32_t>(i));
    waiting[i] = static_cast<std::int32_t>(graph.nodes[i].inputs.size());
    if (waiting[i] == 0) ready.push(static_cast<std::int32_t>(i));
  }
  const auto move = [&](Value& value) { value.node = moved[static_cast<std::size_t>(value.node)]; };
  std::vector<GraphNode> nodes;
  while (!ready.empty()) {
    const auto i = static_cast<std::size_t>(ready.top());
    ready.pop();
    moved[i] = static_cast<std::int32_t>(nodes.size());
    nodes.push_back(std::move(graph.nodes[i]));
    for (Value& input : nodes.back().inputs) move(input);
    for (const std::int32_t user : users[i])
      if (--waiting[static_cast<std::size_t>(user)] == 0) ready.push(user);
  }
  for (Value& output : graph.outputs) move(output);
  graph.nodes = std::move(nodes);
  return graph;
}

}  // namespace

Graph pair_duals(Graph graph) {
  // One pair at a time: numbers change with each.
  const auto next = [&]() -> std::optional<std::pair<std::int32_t, std::int32_t>> {
    for (std::size_t j = 0; j < graph.nodes.size(); ++j) {
      const GraphNode& dual = graph.nodes[j];
      if (dual.op != Op::attention_dual) continue;
      std::vector<Value> operands(dual.inputs.begin(), dual.inputs.begin() + 3);
      operands.insert(operands.end(), dual.inputs.begin() + 6, dual.inputs.end());
      for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
        const GraphNode& primal = graph.nodes[i];
        if (primal.op != Op::attention || primal.inputs != operands ||
            !(primal.attributes == dual.attributes))
          continue;
        // A tangent that is computed from this very output must come after it.
        if (!reaches(graph, static_cast<std::int32_t>(i), static_cast<std::int32_t>(j)))
          return std::pair(static_cast<std::int32_t>(i), static_cast<std::int32_t>(j));
      }
    }
    return std::nullopt;
  };
  while (const auto pair = next()) {
    const auto redirect = [&](Value& value) {
      if (value.node == pair->first) value.node = pair->second;
    };
    for (GraphNode& node : graph.nodes)
      for (Value& input : node.inputs) redirect(input);
    for (Value& output : graph.outputs) redirect(output);
    graph = without_dead(sorted(std::move(graph)));
  }
  return graph;
}

}  // namespace fluxion::plan
