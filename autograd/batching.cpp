#include "autograd/batching.h"

#include <unordered_map>

#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/walk.h"

namespace fluxion {

Tensor repeated(const Tensor& x, std::int64_t size) {
  return broadcast_to(x, with_leading_axis(size, x.shape()));
}

namespace {
// The outputs of a rebuilt node.
struct BatchedNode {
  std::vector<Tensor> outputs;
  bool batched = false;
};
}  // namespace

std::vector<Tensor> batch_graph(const std::vector<Tensor>& outputs,
                                const std::vector<BatchedLeaf>& leaves, std::int64_t size,
                                bool (*descend)(const Node&)) {
  std::unordered_map<const Node*, BatchedNode> known;
  for (const BatchedLeaf& leaf : leaves) known[leaf.one.node().get()] = {{leaf.all}, leaf.batched};
  const auto order =
      walk(outputs, [&](const Node& node) { return !known.contains(&node) && descend(node); });
  for (const WalkedNode& walked : order) {
    const Node& node = *walked.node;
    std::vector<Tensor> inputs;
    std::vector<bool> batched;
    bool any_known = false, any_batched = false;
    for (const Tensor& input : walked.inputs) {
      const auto found = known.find(input.node().get());
      const bool is_known = found != known.end();
      inputs.push_back(is_known ? found->second.outputs[static_cast<std::size_t>(input.output())]
                                : input);
      batched.push_back(is_known && found->second.batched);
      any_known = any_known || is_known;
      any_batched = any_batched || batched.back();
    }
    if (!any_known) continue;
    // `after` only delays its value: a value that waits for a mapped token is still the same for
    // every example.
    const bool same = !any_batched || (node.op == Op::after && !batched[0]);
    if (same)
      known[&node] = {make_nodes(node.op, node.attributes, std::move(inputs)), false};
    else
      known[&node] = {batch_rule(node.op)({walked.node, inputs, batched, size, leaves}), true};
  }
  std::vector<Tensor> result;
  for (const Tensor& output : outputs) {
    if (!output) {
      result.emplace_back();
      continue;
    }
    const auto found = known.find(output.node().get());
    const Tensor& value = found == known.end()
                              ? output
                              : found->second.outputs[static_cast<std::size_t>(output.output())];
    result.push_back(found != known.end() && found->second.batched ? value : repeated(value, size));
  }
  return result;
}

}  // namespace fluxion
