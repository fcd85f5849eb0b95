// The one traversal of tensor graphs. Iterative, so that a chain of any length is walked without
// recursion.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

struct WalkedNode {
  std::shared_ptr<Node> node;
  std::vector<Tensor> inputs;  // as they were when the walk passed; empty where it did not descend
};

// The nodes reachable from `roots` (empty tensors are skipped), inputs before users, each once.
// `descend(node)` says whether to follow the inputs of a node.
std::vector<WalkedNode> walk(std::span<const Tensor> roots,
                             const std::function<bool(const Node&)>& descend);

}  // namespace fluxion
