// Fusion: which ops share a kernel.
//
// Elementwise ops and reductions are gathered, users before inputs, into groups that each run as
// one tape over one iteration space. A value used in several groups is either stored by one of them
// or - when it is cheap and costs no more bytes to read its sources - computed again in each.
#pragma once

#include <set>
#include <vector>

#include "engine/backend.h"
#include "engine/plan/space.h"

namespace fluxion::plan {

struct Cuts;  // engine/plan/split.h

struct Group {
  Space space;
  std::vector<NodeId> nodes;   // hosted here, in topological order: members and copies of values
                               // that others compute too
  std::vector<NodeId> stores;  // members that are written to memory
};

// A graph that fusion can work on: movement ops that don't fold into index maps, and operands that
// must lie in memory, are preceded by an explicit copy (Op::identity). No value is read in more
// than limits.max_loads places at once: a concatenation of more than half of them is done in parts.
// Carries out `cuts`, which are cuts of the given graph; what remains of them are the nodes of the
// result that must be stored.
Graph prepare(const Graph& graph, const KernelLimits& limits, Cuts& cuts);

// `stored` are nodes that must be written to memory and read back: no group holds one of them
// beside one of its users.
std::vector<Group> fuse(const Graph& prepared, const Capabilities& device,
                        const std::set<NodeId>& stored = {});

}  // namespace fluxion::plan
