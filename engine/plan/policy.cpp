#include "engine/plan/policy.h"

#include <algorithm>

#include "engine/graph/op_names.h"

namespace fluxion::plan {

FusionPolicy::FusionPolicy(const Graph& graph, const CostModel& costs,
                           const std::set<NodeId>& stored)
    : graph_(graph),
      costs_(costs),
      sources_(graph.nodes.size()),
      ops_(graph.nodes.size()),
      rows_(graph.nodes.size()),
      levels_(graph.nodes.size()) {
  for (const NodeId n : graph.nodes.ids()) {
    find_sources(n, stored.contains(n));
    find_rows(n);
    find_level(n);
  }
}

void FusionPolicy::find_sources(NodeId n, bool stored) {
  const GraphNode& node = graph_[n];
  if (op_class(n) != OpClass::elementwise || node.op == Op::identity ||
      !is_register(node.outputs[0].dtype) || stored)
    return;
  std::set<NodeId> sources;
  int ops = 1;
  for (const Value input : node.inputs)
    for_sources(graph_, input, [&](Value source) {
      if (is_literal(graph_[source])) return;
      if (ops_[source.node] > 0) {
        sources.insert(sources_[source.node].begin(), sources_[source.node].end());
        ops += ops_[source.node];
      } else {
        sources.insert(source.node);
      }
    });
  if (std::ssize(sources) > costs_.max_recomputed_sources || ops > costs_.max_recomputed_ops)
    return;
  sources_[n] = std::move(sources);
  ops_[n] = ops;
}

void FusionPolicy::find_rows(NodeId n) {
  if (op_class(n) == OpClass::reduction) rows_[n] = own_space(graph_, n);
  if (op_class(n) != OpClass::elementwise) return;
  const Dims sizes = squeeze(graph_[n].outputs[0].shape);
  for (const Value input : graph_[n].inputs)
    for_sources(graph_, input, [&](Value source) {
      const auto& rows = rows_[source.node];
      if (!rows_[n] && rows && rows->kept() == sizes) rows_[n] = rows;
    });
}

void FusionPolicy::find_level(NodeId n) {
  const OpClass c = op_class(n);
  for (const Value input : graph_[n].inputs) levels_[n] = std::max(levels_[n], levels_[input.node]);
  if (c == OpClass::contraction || is_whole(c)) ++levels_[n];
}

bool FusionPolicy::computes_again(NodeId n, bool stretched) const {
  if (ops_[n] == 0) return false;
  if (stretched && (is_transcendental(graph_[n].op) || ops_[n] > costs_.max_stretched_ops))
    return false;
  const std::size_t bytes = graph_[n].outputs[0].bytes();
  std::size_t source_bytes = 0;
  for (const NodeId source : sources_[n])
    source_bytes += std::min(bytes, graph_[source].outputs[0].bytes());
  return static_cast<double>(source_bytes) <= costs_.max_source_bytes * static_cast<double>(bytes);
}

bool FusionPolicy::wants_epilogue(NodeId n) const {
  if (op_class(n) != OpClass::elementwise) return false;
  std::set<NodeId> sources = sources_[n];
  for (const Value input : graph_[n].inputs) sources.insert(peel_reshapes(graph_, input).node);
  bool of_contraction = false;
  for (const NodeId source : sources) {
    // A reduction's result is not known when the contraction's tile is done.
    if (op_class(source) == OpClass::reduction) return false;
    of_contraction = of_contraction || (op_class(source) == OpClass::contraction &&
                                        graph_[source].outputs[0].shape.elements() ==
                                            graph_[n].outputs[0].shape.elements());
  }
  return of_contraction;
}

bool FusionPolicy::rows_are_lonely(const Space& space) const {
  return space.rows() < costs_.min_resident_rows && space.row_elements() > costs_.max_lonely_row;
}

}  // namespace fluxion::plan
