// Lowering: groups of ops become expression tapes, contractions become operand views, the rest op
// kernels.
#pragma once

#include <optional>
#include <vector>

#include "engine/plan/fuse.h"
#include "engine/plan/graph.h"
#include "engine/program/program.h"

namespace fluxion::plan {

// Buffer numbers while planning: one for every value that has memory.
class BufferNumbers {
 public:
  explicit BufferNumbers(const Graph& graph) : graph_(graph) {}
  BufferId of(Value value);  // given a number at the first call
  const Indexed<BufferId, Value>& values() const { return values_; }

 private:
  const Graph& graph_;
  Indexed<NodeId, std::vector<BufferId>> numbers_;  // by output
  Indexed<BufferId, Value> values_;
};

// A kernel and the memory it touches, by buffer number.
struct LoweredKernel {
  Kernel kernel;
  NodeId position;  // the last of its ops in the graph's order
};

using Kernels = Indexed<KernelId, LoweredKernel>;
using Slots = Indexed<BufferId, BufferSlot>;  // the buffers' roles

// The tape of a group, or nothing if some index can't be written as an affine function; then
// `stuck` gets the operand to be copied.
std::optional<Tape> lower_group(const Graph& graph, const Group& group, BufferNumbers& buffers,
                                std::vector<Operand>& stuck);

// A contraction as a kernel with one result and a trivial epilogue.
ContractKernel lower_contraction(const Graph& graph, NodeId node, BufferNumbers& buffers);

OpKernel lower_op(const Graph& graph, NodeId node, BufferNumbers& buffers);

// Rewrites `tape` so that its iteration space runs in the row-major order of buffer `buffer`, which
// it must read element for element, once each; false if it doesn't.
bool reorder_along(Tape& tape, BufferId buffer);

// Splits the tapes' axes until their extents agree; false if they can't.
bool common_axes(Tape& a, Tape& b);

// Makes neighbouring axes one wherever every index of the tape runs through them as through one.
void merge_axes(Tape& tape);

// b's instructions, loads and stores appended to a. Extents must agree.
void append_tape(Tape& a, const Tape& b);

// Loads of `buffer` replaced by result `result` of the contraction that the tape is the epilogue
// of.
void replace_load_by_result(Tape& tape, BufferId buffer, std::int32_t result);

// Drops loads, instructions, indices and ranges that no store needs, and merges equal ones.
void tidy(Tape& tape);

// The buffers a kernel reads and writes.
std::vector<BufferId> reads(const Kernel& kernel);
std::vector<BufferId> writes(const Kernel& kernel);

}  // namespace fluxion::plan
