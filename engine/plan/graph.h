// The planner's form of a computation: a numbered graph in topological order, without pointers or
// values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/backend.h"
#include "engine/graph/op.h"
#include "engine/graph/tensor.h"
#include "engine/plan/id.h"

namespace fluxion::plan {

// Output `output` of node `node`.
struct Value {
  NodeId node;
  std::int32_t output = 0;
  auto operator<=>(const Value&) const = default;
};

// Operand `number` of node `user`.
struct Use {
  NodeId user;
  std::int32_t number = 0;
  auto operator<=>(const Use&) const = default;
};

struct GraphNode {
  Op op{};
  Attributes attributes;  // of a parameter: its input; of a constant: the value if 0, 1 or -1
  std::vector<Value> inputs;
  std::vector<TensorType> outputs;
  std::int32_t scalar = -1;  // of a constant: which run-time scalar, or -1 for a literal
  bool operator==(const GraphNode&) const = default;
};

struct Graph {
  Indexed<NodeId, GraphNode> nodes;  // inputs before users
  std::vector<Value> outputs;
  std::vector<TensorType> inputs;     // types of the parameters, by index
  std::vector<std::int32_t> donated;  // inputs whose memory may be taken over
  std::int32_t scalars = 0;
  bool operator==(const Graph&) const = default;

  const GraphNode& operator[](NodeId node) const { return nodes[node]; }
  const GraphNode& operator[](Value value) const { return nodes[value.node]; }
  const TensorType& type(Value value) const {
    return nodes[value.node].outputs[static_cast<std::size_t>(value.output)];
  }
};

// Whether a node is a leaf without memory, a number or an index: each kernel makes its own.
bool is_literal(const GraphNode& node);

// The value below all reshapes on top of `value`: they share its memory.
Value peel_reshapes(const Graph& graph, Value value);

// Calls f for each value that `value` is made of through movement ops alone, once for each path to
// it.
template <class F>
void for_sources(const Graph& graph, Value value, F&& f) {
  std::vector<Value> pending{value};
  while (!pending.empty()) {
    const Value next = pending.back();
    pending.pop_back();
    if (info(graph[next].op).op_class != OpClass::movement) {
      f(next);
      continue;
    }
    const std::vector<Value>& inputs = graph[next].inputs;
    pending.insert(pending.end(), inputs.begin(), inputs.end());
  }
}

// Equal graphs have equal hashes, but so may others: whoever finds something by its hash compares
// it.
std::uint64_t hash(const Graph& graph);
std::uint64_t hash(const GraphNode& node);

// Checks the invariants: inputs before users, arity, types as the shape rules give them. Throws
// Error, which names the first that does not hold.
void verify(const Graph& graph);

std::string to_string(const Graph& graph);

// A traced computation: its graph, and the values that a call binds.
struct Canonical {
  Graph graph;
  std::vector<Tensor> inputs;  // the tensors of the parameters: first those given, then captured
  std::vector<double> scalars;
};

// Numbers the nodes that `outputs` depend on. `parameters` become the first inputs, in order;
// evaluated tensors become further ones. Regions are replaced by their graphs. Throws Error for any
// other parameter leaf, whose value was asked for while it was traced, and for the derivative of a
// custom_vjp, which has no graph.
Canonical canonicalise(std::span<const Tensor> parameters, std::span<const Tensor> outputs);

// Whether a backend with these limits has a kernel for this fused op. If not, simplify expands the
// op; an attention_backward of lse and delta (is_by_delta) it always expands.
bool has_kernel(const GraphNode& node, const KernelLimits& limits);

// Merges common subexpressions, removes identities and neutral elements, expands fused ops without
// a kernel, and drops dead nodes. `extra_scalars` receives the values of the scalars that this adds
// after those of the graph.
Graph simplify(const Graph& graph, const Capabilities& device, std::vector<double>& extra_scalars);

// The same for no particular device: fused ops stay whole, and nothing is rewritten only because it
// is faster on some machine. For stored graphs (engine/export/stored_graph.h).
Graph simplify_portably(const Graph& graph, std::vector<double>& extra_scalars);

// The graph without the nodes that no output depends on.
Graph without_dead(Graph graph);

// Where attention and its dual have the same operands, replaces the primal's outputs by the dual's
// first ones, so that they are computed once.
Graph pair_duals(Graph graph);

}  // namespace fluxion::plan

namespace fluxion {
// The graph behind tensors as text: a line per op, in order of evaluation.
std::string to_string(std::span<const Tensor> tensors);
}  // namespace fluxion
