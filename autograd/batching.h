// The batching table: for every op what it becomes when some of its operands carry one axis more,
// along which it is applied to each example.
//
// vmap walks the graph that a function made of one example and rebuilds, by these rules, every node
// that depends on it.
#pragma once

#include <span>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

// A leaf of the graph made for one example, and what stands for it in that for all: with the mapped
// axis in front, if it is batched.
struct BatchedLeaf {
  Tensor one, all;
  bool batched = true;
};

// What a rule sees: the node, made for one example, and its operands. Those that are batched (at
// least one is) have the mapped axis in front: [size, ..] where the node's operand is [..]. The
// others are as the node has them, the same for every example.
struct BatchCall {
  const std::shared_ptr<Node>& node;
  const std::vector<Tensor>& inputs;
  const std::vector<bool>& batched;
  std::int64_t size;
  std::span<const BatchedLeaf> leaves =
      {};  // of the whole graph: for rules that hold tensors of it, as those of regions do

  template <class T>
  const T& get() const {
    return std::get<T>(node->attributes);
  }
};
// The node's outputs for all examples, each with the mapped axis in front. `size` may be 0.
using BatchRule = std::vector<Tensor> (*)(const BatchCall&);

// Null for leaves alone, which depend on nothing.
BatchRule batch_rule(Op op);

// The rule of regions (autograd/batching_regions.cpp).
std::vector<Tensor> batch_region(const BatchCall& call);

// x, the same for every example, as [size, ..]: a view.
Tensor repeated(const Tensor& x, std::int64_t size);

// The outputs of a graph for all examples at once, given what stands for its leaves; each output
// has the mapped axis in front, also one that is the same for every example. Nodes that depend on
// no leaf are used as they are. `descend` says where the walk may go on.
std::vector<Tensor> batch_graph(const std::vector<Tensor>& outputs,
                                const std::vector<BatchedLeaf>& leaves, std::int64_t size,
                                bool (*descend)(const Node&));

}  // namespace fluxion
