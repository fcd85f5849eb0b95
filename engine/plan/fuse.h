// Fusion: which ops share a kernel.
//
// Elementwise ops and reductions are gathered, users before inputs, into groups. Each group runs as
// one tape over one iteration space. A value that several groups read is stored by one of them, or
// recomputed in each if it is cheap and its sources take few enough bytes to read.
#pragma once

#include <set>
#include <vector>

#include "engine/backend.h"
#include "engine/plan/space.h"

namespace fluxion::plan {

struct Cuts;  // engine/plan/split.h

struct Group {
  Space space;
  std::vector<NodeId> nodes;   // computed here, in topological order: members, and copies of values
                               // that other groups compute too
  std::vector<NodeId> stores;  // members that are written to memory
};

// A graph ready for fusion. An explicit copy (Op::identity) precedes each movement op that does not
// fold into an index map, and each operand that must lie in memory. No value is read from more than
// limits.max_loads places through views: a concatenation of more pieces than a kernel can choose
// between is done in parts. Carries out `cuts`, which name nodes of the given graph; afterwards
// `cuts` holds the nodes of the result that must be stored.
Graph prepare(const Graph& graph, const KernelLimits& limits, Cuts& cuts);

// The groups of a prepared graph, within the limits of the device. Nodes in `stored` are written to
// memory and read back: no group holds one of them together with one of its users.
std::vector<Group> fuse(const Graph& prepared, const Capabilities& device,
                        const std::set<NodeId>& stored = {});

}  // namespace fluxion::plan
