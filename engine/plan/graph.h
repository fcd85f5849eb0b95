// The planner's view of a computation: a numbered graph in topological order, without pointers or
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
struct Operand {
  NodeId user;
  std::int32_t number = 0;
  auto operator<=>(const Operand&) const = default;
};

struct GraphNode {
  Op op{};
  Attributes
      attributes;  // of a parameter: which input; of a constant: the value if it is 0, 1 or -1
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

// Whether a node is a leaf without memory: a number or an index, wherever it is needed.
bool is_literal(const GraphNode& node);

// Formats that exist in memory only: rounding to them happens when they are stored.
inline bool storage_only(DType dtype) {
  return dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::u8 || dtype == DType::i64;
}

// What the memory of a graph output or an index operand is: reshapes peeled off.
Value peel_reshapes(const Graph& graph, Value value);

// Calls f for each value outside of movement ops that `value` is made of.
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

struct Hash128 {
  std::uint64_t low = 0, high = 0;
  bool operator==(const Hash128&) const = default;
};
Hash128 hash(const Graph& graph);
Hash128 hash(const GraphNode& node);

// Throws Error naming the first invariant that does not hold: order, arity, types as the shape
// rules give them.
void verify(const Graph& graph);

std::string to_string(const Graph& graph);

// A traced computation, split into its graph and what a call binds.
struct Canonical {
  Graph graph;
  std::vector<Tensor>
      inputs;  // tensors behind the parameters: first those given, then captured ones
  std::vector<double> scalars;
};

// Numbers everything that `outputs` depend on. `parameters` become the first inputs, in order;
// evaluated tensors become further ones. A parameter leaf that is not among them throws Error: its
// value was asked for while it was traced. Regions are replaced by what they hold; the derivative
// of a custom_vjp holds nothing and throws Error.
Canonical canonicalise(std::span<const Tensor> parameters, std::span<const Tensor> outputs);

// Whether a backend with these limits has a kernel for this fused op; its expansion takes the place
// of any other.
bool has_kernel(const GraphNode& node, const KernelLimits& limits);

// Common subexpressions merged, identities and neutral elements removed, fused ops without a kernel
// expanded, dead nodes dropped. `extra_scalars` gets the values of scalars that expansions add
// after graph.scalars.
Graph simplify(const Graph& graph, const Capabilities& device, std::vector<double>& extra_scalars);

// The same for no device in particular: fused ops stay whole, and nothing is rewritten only because
// some machine is faster then. What is stored (engine/export/stored_graph.h).
Graph simplify_portably(const Graph& graph, std::vector<double>& extra_scalars);

// Without the nodes that no output depends on.
Graph without_dead(Graph graph);

// Where attention and its dual stand on the same operands, the dual's first outputs take the place
// of the primal: it is computed once.
Graph pair_duals(Graph graph);

}  // namespace fluxion::plan

namespace fluxion {
// The graph behind tensors as text: a line per op, in order of evaluation.
std::string to_string(std::span<const Tensor> tensors);
}  // namespace fluxion
