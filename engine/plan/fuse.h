// Fusion: which ops share a kernel.
//
// Elementwise ops and reductions are gathered, users before inputs, into groups. Each group runs as
// one tape over one iteration space. A value that several groups read is stored by one of them, or
// recomputed in each if it is cheap and its sources take few enough bytes to read. Groups that read
// little in common stay apart where one could otherwise free its operands before the next runs.
#pragma once

#include <set>
#include <vector>

#include "engine/backend.h"
#include "engine/plan/space.h"

namespace fluxion::plan {

struct Group {
  Space space;
  std::vector<NodeId> nodes;   // computed here, in topological order: members, and copies of values
                               // that other groups compute too
  std::vector<NodeId> stores;  // members that are written to memory
};

// The groups of a prepared graph, within the limits of the device. Nodes in `stored` are written to
// memory and read back: no group holds one of them together with one of its users.
std::vector<Group> fuse(const Graph& prepared, const Capabilities& device,
                        const std::set<NodeId>& stored = {});

}  // namespace fluxion::plan
