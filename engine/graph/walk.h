// The one traversal of tensor graphs. It is iterative: a chain of any length needs no recursion.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

struct WalkedNode {
  std::shared_ptr<Node> node;
  std::vector<Tensor> inputs;  // a snapshot by the walk; empty if it did not descend
};

// The nodes reachable from `roots`, inputs before users, each once. Empty tensors are skipped.
// `descend(node)` says whether to follow the inputs of a node.
std::vector<WalkedNode> walk(std::span<const Tensor> roots,
                             const std::function<bool(const Node&)>& descend);

}  // namespace fluxion
