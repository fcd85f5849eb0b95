// Splitting: how a graph is changed when its kernels exceed the limits of a device.
//
// make_plan lowers the graph, checks every kernel with `fits`, and calls split_group or
// split_operator for those that do not fit. They choose one of these changes:
//   a cut between fused ops: one of them is written to memory and read back by its users,
//   a copy of an operand that is read through a view,
//   an op in several steps, each simpler than the op itself.
// Then everything is lowered again. This ends, because a cut removes an edge inside a group, a copy
// removes movement ops from an operand, and a step has fewer axes, pieces or paddings than the op.
// The last resort are single ops on plain memory, which fit least_limits(). A buffer that is too
// large by itself is an error.
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
  std::set<NodeId> stored;          // nodes that all users read from memory (see fuse())
  std::set<Use> copied;             // operands to copy to memory
  std::map<NodeId, Limit> stepped;  // nodes to do in steps, and the limit that each breaks
};

// What a kernel needs beyond the limits of its device.
struct Excess {
  Fit fit;
  Value buffer;  // the value in the buffer, if the limit is one of memory
  const KernelLimits& limits;
  const Storage& storage;
  std::string_view device;
};

// Adds a change to `cuts` that makes the kernel of this group smaller. Throws DeviceError, which
// names tensor, limit and device, if there is none.
void split_group(const Graph& graph, const Group& group, const Excess& excess, Cuts& cuts);

// The same for the kernel of a contraction or of an op on whole tensors.
void split_operator(const Graph& graph, NodeId node, const Excess& excess, Cuts& cuts);

}  // namespace fluxion::plan
