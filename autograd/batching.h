// The batching table: one rule per op, which applies the op to many examples at once. The examples
// lie along an extra leading axis, the mapped axis, that some operands carry.
//
// vmap calls a function on one example, walks the graph that it built and rebuilds every node that
// depends on that example by these rules.
#pragma once

#include <span>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

// A leaf of the graph for one example, and its counterpart in the graph for all examples. If
// batched, the counterpart has the mapped axis in front.
struct BatchedLeaf {
  Tensor one, all;
  bool batched = true;
};

// What a rule sees: the node for one example, and its operands for all examples. At least one
// operand is batched: it is [size, ..] where the node's operand is [..]. The others are shared by
// all examples and have the shape that the node knows.
struct BatchCall {
  const std::shared_ptr<Node>& node;
  const std::vector<Tensor>& inputs;
  const std::vector<bool>& batched;
  std::int64_t size;
  // Leaves of the whole graph. Rules of regions may hold tensors of that graph, so they need them.
  std::span<const BatchedLeaf> leaves = {};

  template <class T>
  const T& get() const {
    return std::get<T>(node->attributes);
  }
};
// The node's outputs for all examples, each with the mapped axis in front. `size` may be 0.
using BatchRule = std::vector<Tensor> (*)(const BatchCall&);

// Null for leaves only: they depend on nothing.
BatchRule batch_rule(Op op);

// The rule of regions (autograd/batching_regions.cpp).
std::vector<Tensor> batch_region(const BatchCall& call);
// The same region where no operand is batched, for all examples at once. Its rules, and those of
// regions inside it, may hold leaves of the graph, and get their counterparts.
std::vector<Tensor> share_region(const BatchCall& call);

// x repeated for every example, [size, ..]. A view, no copy.
Tensor repeated(const Tensor& x, std::int64_t size);

// A tensor of a rebuilt graph: if batched, with the mapped axis in front, else the same for all
// examples.
struct BatchedValue {
  Tensor value;
  bool batched = false;
};

// Rebuilds a graph for all examples at once. Nodes that depend on no leaf are used as they are.
// `descend` says which nodes the walk enters.
std::vector<BatchedValue> batch_values(const std::vector<Tensor>& outputs,
                                       const std::vector<BatchedLeaf>& leaves, std::int64_t size,
                                       bool (*descend)(const Node&));
// The same, but every output gets the mapped axis in front.
std::vector<Tensor> batch_graph(const std::vector<Tensor>& outputs,
                                const std::vector<BatchedLeaf>& leaves, std::int64_t size,
                                bool (*descend)(const Node&));

}  // namespace fluxion
