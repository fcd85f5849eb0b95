// Splitting: what is done to a graph whose kernels are more than a device can hold.
//
// make_plan lowers the graph, checks every kernel with `fits`, and calls split_group or
// split_operator for those that do not fit. They note what must change, in the order
//   a cut between fused ops: one of them is written to memory and read back by its users,
//   a copy of an operand that is read through a view,
//   an op in several steps, each simpler than the op itself.
// Then everything is lowered again. This ends: a cut removes an edge inside of a group, a copy
// takes movement ops off an operand, and a step has fewer axes, pieces or paddings than the op.
// What remains in the end are single ops on plain memory, which fit least_limits() - or a buffer
// that is itself too large, which is an error.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "engine/plan/graph.h"
#include "engine/program/limits.h"

namespace fluxion::plan {

struct Group;

struct Cuts {
  std::set<NodeId> stored;  // nodes that all users read from memory, see fuse()
  std::set<Operand> copied;
  std::map<NodeId, Limit> stepped;  // nodes, and the limit that each breaks
};

// What a kernel needs and its device does not offer.
struct Excess {
  Fit fit;
  Value buffer;  // whose memory, if the limit is one on memory
  const KernelLimits& limits;
  std::string_view device;
};

// Adds to `cuts` what makes the kernel of this group smaller. Throws DeviceError, which names
// tensor, limit and device, if nothing does.
void split_group(const Graph& graph, const Group& group, const Excess& excess, Cuts& cuts);

// The same for the kernel of a contraction or of an op on whole tensors.
void split_operator(const Graph& graph, NodeId node, const Excess& excess, Cuts& cuts);

}  // namespace fluxion::plan
