// Policy of fusion: which of the legal groupings is faster on a machine. fuse.cpp decides which are
// legal.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "engine/cost_model.h"
#include "engine/plan/space.h"

namespace fluxion::plan {

class FusionPolicy {
 public:
  // `stored`: nodes that are in memory anyway.
  FusionPolicy(const Graph& graph, const CostModel& costs, const std::set<NodeId>& stored);

  // Whether several kernels that read n should each compute it, rather than one store it.
  // `stretched`: some reader has more elements and would compute each element of n many times.
  bool computes_again(NodeId n, bool stretched) const;

  // Whether n, which is stored anyway, should be the epilogue of a contraction rather than part of
  // a reduction: it reads a contraction's result of its own size, and no reduction.
  bool wants_epilogue(NodeId n) const;

  // How many kernels that fuse with no other, one after the other, must have run before n can be
  // computed: of two values, the one of a higher level is known later.
  int level(NodeId n) const { return levels_[n]; }

  // The rows that n should be computed with: those of the reduction that it depends on, if any.
  const std::optional<Space>& rows(NodeId n) const { return rows_[n]; }

  // Whether the rows are so few and long that keeping each resident on one core leaves too many
  // cores idle.
  bool rows_are_lonely(const Space& space) const;

 private:
  void find_sources(NodeId n, bool stored);
  void find_rows(NodeId n);
  void find_level(NodeId n);
  OpClass op_class(NodeId n) const { return info(graph_[n].op).op_class; }

  const Graph& graph_;
  const CostModel& costs_;
  // For an elementwise node that may be recomputed: the nodes in memory that it is computed from,
  // and the number of ops that takes. 0 ops: it may not.
  Indexed<NodeId, std::set<NodeId>> sources_;
  Indexed<NodeId, int> ops_;
  Indexed<NodeId, std::optional<Space>> rows_;
  Indexed<NodeId, int> levels_;
};

}  // namespace fluxion::plan
