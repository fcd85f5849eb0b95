#include "engine/graph/walk.h"

#include <unordered_set>

namespace fluxion {

std::vector<WalkedNode> walk(std::span<const Tensor> roots,
                             const std::function<bool(const Node&)>& descend) {
  struct Frame {
    WalkedNode walked;
    std::size_t next = 0;
  };
  std::vector<WalkedNode> order;
  std::unordered_set<const Node*> seen;
  std::vector<Frame> path;
  const auto enter = [&](const Tensor& tensor) {
    if (!tensor || !seen.insert(tensor.node().get()).second) return;
    const bool follow = descend(*tensor.node());
    path.push_back({{tensor.node(), follow ? tensor.node()->inputs() : std::vector<Tensor>{}}, 0});
  };
  for (const Tensor& root : roots) {
    enter(root);
    while (!path.empty()) {
      Frame& top = path.back();
      if (top.next < top.walked.inputs.size()) {
        const Tensor next = top.walked.inputs[top.next++];  // enter() may move the frames
        enter(next);
      } else {
        order.push_back(std::move(top.walked));
        path.pop_back();
      }
    }
  }
  return order;
}

}  // namespace fluxion
