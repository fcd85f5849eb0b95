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
                                std::vector<Operand>& stuck);

// A contraction as a kernel with one result and a trivial epilogue.
ContractKernel lower_contraction(const Graph& graph, NodeId node, BufferNumbers& buffers);

OpKernel lower_op(const Graph& graph, NodeId node, BufferNumbers& buffers);

// Rewrites `tape` so that its iteration space runs in the row-major order of `buffer`. Returns
// false unless the tape reads each element of the buffer exactly once.
bool reorder_along(Tape& tape, BufferId buffer);

// Splits the tapes' axes until their extents agree. Returns false if they can't.
bool common_axes(Tape& a, Tape& b);

// Merges neighbouring axes wherever every index of the tape runs through them as through one.
void merge_axes(Tape& tape);

// Appends b's instructions, loads and stores to a. The extents must agree.
void append_tape(Tape& a, const Tape& b);

// Replaces loads of `buffer` by result `result` of the contraction whose epilogue the tape is.
void replace_load_by_result(Tape& tape, BufferId buffer, std::int32_t result);

// Drops loads, instructions, indices and ranges that no store needs, and merges equal ones.
void tidy(Tape& tape);

// The buffers a kernel reads and writes.
std::vector<BufferId> reads(const Kernel& kernel);
std::vector<BufferId> writes(const Kernel& kernel);

}  // namespace fluxion::plan
