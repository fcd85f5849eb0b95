// Policy of fusion: which of the legal groupings is better on a machine. What is legal, fuse.cpp
// knows.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "engine/cost_model.h"
#include "engine/plan/space.h"

namespace fluxion::plan {

class FusionPolicy {
 public:
  // `stored`: nodes that are in memory in any case.
  FusionPolicy(const Graph& graph, const CostModel& costs, const std::set<NodeId>& stored);

  // Whether n, read by several kernels, is better computed by each of them than stored once.
  // `stretched`: some reader has more elements and would compute each of n's many times.
  bool computes_again(NodeId n, bool stretched) const;

  // Whether n should be the epilogue of the contraction whose result it reads, rather than part of
  // a reduction: it is stored anyway, and reads the result element for element.
  bool wants_epilogue(NodeId n) const;

  // The rows that n should be computed with: those of the reduction that it follows, if any.
  const std::optional<Space>& rows(NodeId n) const { return rows_[n]; }

  // Whether a row that stays resident, one core's work, leaves too many cores idle: few and long.
  bool rows_are_lonely(const Space& space) const;

 private:
  void find_sources(NodeId n, bool stored);
  void find_rows(NodeId n);
  OpClass op_class(NodeId n) const { return info(graph_[n].op).op_class; }

  const Graph& graph_;
  const CostModel& costs_;
  // For an elementwise node that may be computed again: the nodes in memory that it is computed
  // from, and by how many ops; 0 ops: not again.
  Indexed<NodeId, std::set<NodeId>> sources_;
  Indexed<NodeId, int> ops_;
  Indexed<NodeId, std::optional<Space>> rows_;
};

}  // namespace fluxion::plan
