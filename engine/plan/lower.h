// Lowering: groups of ops become expression tapes, contractions become products of operand views,
// and all other ops become op kernels.
#pragma once

#include <optional>
#include <vector>

#include "engine/plan/fuse.h"
#include "engine/plan/graph.h"
#include "engine/program/program.h"

namespace fluxion::plan {

// Numbers the values that have memory.
class BufferNumbers {
 public:
  explicit BufferNumbers(const Graph& graph) : graph_(graph) {}
  BufferId of(Value value);  // the first call for a value gives it a number
  const Indexed<BufferId, Value>& values() const { return values_; }

 private:
  const Graph& graph_;
  Indexed<NodeId, std::vector<BufferId>> numbers_;  // by output
  Indexed<BufferId, Value> values_;
};

// A kernel over numbered buffers.
struct LoweredKernel {
  Kernel kernel;
  NodeId position;  // the last of its ops in the graph's order
};

using Kernels = Indexed<KernelId, LoweredKernel>;
using Slots = Indexed<BufferId, BufferSlot>;  // the buffers' roles

// The tape of a group. Returns nothing if some index is not an affine function, and adds the
// operand that must be copied to `stuck`.
std::optional<Tape> lower_group(const Graph& graph, const Group& group, BufferNumbers& buffers,
                                std::vector<Use>& stuck);

// A contraction as a kernel with one result and a trivial epilogue.
ContractKernel lower_contraction(const Graph& graph, NodeId node, BufferNumbers& buffers);

OpKernel lower_op(const Graph& graph, NodeId node, BufferNumbers& buffers);

}  // namespace fluxion::plan
