// A dual op computes the outputs of its primal op and their tangents. Where a plan has both on the
// same operands, the dual replaces the primal.
#include <functional>
#include <optional>
#include <queue>
#include <utility>

#include "engine/plan/graph.h"

#include "engine/graph/op_names.h"

namespace fluxion::plan {

namespace {

// Whether node `to` depends on node `from`.
bool reaches(const Graph& graph, NodeId from, NodeId to) {
  Indexed<NodeId, bool> seen(graph.nodes.size());
  std::vector<NodeId> pending{to};
  while (!pending.empty()) {
    const NodeId node = pending.back();
    pending.pop_back();
    if (node == from) return true;
    for (const Value input : graph[node].inputs) {
      // Operands have lower numbers, so a node below `from` does not depend on it.
      if (input.node < from || seen[input.node]) continue;
      seen[input.node] = true;
      pending.push_back(input.node);
    }
  }
  return false;
}

// The nodes in an order with inputs before users, as close to the given one as possible.
Graph sorted(Graph graph) {
  const std::size_t count = graph.nodes.size();
  Indexed<NodeId, std::size_t> waiting(count);
  Indexed<NodeId, NodeId> moved(count);
  Indexed<NodeId, std::vector<NodeId>> users(count);
  std::priority_queue<NodeId, std::vector<NodeId>, std::greater<>> ready;
  for (const NodeId n : graph.nodes.ids()) {
    for (const Value input : graph[n].inputs) users[input.node].push_back(n);
    waiting[n] = graph[n].inputs.size();
    if (waiting[n] == 0) ready.push(n);
  }
  const auto move = [&](Value& value) { value.node = moved[value.node]; };
  Indexed<NodeId, GraphNode> nodes;
  while (!ready.empty()) {
    const NodeId n = ready.top();
    ready.pop();
    for (Value& input : graph.nodes[n].inputs) move(input);
    moved[n] = nodes.add(std::move(graph.nodes[n]));
    for (const NodeId user : users[n])
      if (--waiting[user] == 0) ready.push(user);
  }
  for (Value& output : graph.outputs) move(output);
  graph.nodes = std::move(nodes);
  return graph;
}

}  // namespace

Graph pair_duals(Graph graph) {
  // One pair at a time: each one changes the numbers.
  const auto next = [&]() -> std::optional<std::pair<NodeId, NodeId>> {
    for (const NodeId j : graph.nodes.ids()) {
      const GraphNode& dual = graph[j];
      if (dual.op != Op::attention_dual) continue;
      std::vector<Value> operands(dual.inputs.begin(), dual.inputs.begin() + 3);
      operands.insert(operands.end(), dual.inputs.begin() + 6, dual.inputs.end());
      for (const NodeId i : graph.nodes.ids()) {
        const GraphNode& primal = graph[i];
        if (primal.op != Op::attention || primal.inputs != operands ||
            !(primal.attributes == dual.attributes))
          continue;
        // Not if a tangent is computed from this primal's output: that would be a cycle.
        if (!reaches(graph, i, j)) return std::pair(i, j);
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
