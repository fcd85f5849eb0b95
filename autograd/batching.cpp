#include "autograd/batching.h"

#include <unordered_map>

#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/region.h"
#include "engine/graph/walk.h"

namespace fluxion {

Tensor repeated(const Tensor& x, std::int64_t size) {
  if (x.dtype() == DType::i64)
    throw DTypeError("vmap: the result " + to_string(x.type()) +
                     " is the same for every example, and i64 can't be repeated: convert it to "
                     "i32, or use it outside");
  return broadcast_to(x, with_leading_axis(size, x.shape()));
}

namespace {
// The outputs of a rebuilt node.
struct BatchedNode {
  std::vector<Tensor> outputs;
  bool batched = false;
};

bool holds_rules(const Node& node) {
  const auto* held = std::get_if<RegionAttributes>(&node.attributes);
  return held && has_rules(*held->region);
}
}  // namespace

std::vector<BatchedValue> batch_values(const std::vector<Tensor>& outputs,
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
    const BatchCall call{walked.node, inputs, batched, size, leaves};
    if (!same)
      known[&node] = {batch_rule(node.op)(call), true};
    else if (holds_rules(node))
      known[&node] = {share_region(call), false};
    else
      known[&node] = {make_nodes(node.op, node.attributes, std::move(inputs)), false};
  }
  std::vector<BatchedValue> result;
  for (const Tensor& output : outputs) {
    const auto found = output ? known.find(output.node().get()) : known.end();
    if (found == known.end())
      result.push_back({output, false});
    else
      result.push_back({found->second.outputs[static_cast<std::size_t>(output.output())],
                        found->second.batched});
  }
  return result;
}

std::vector<Tensor> batch_graph(const std::vector<Tensor>& outputs,
                                const std::vector<BatchedLeaf>& leaves, std::int64_t size,
                                bool (*descend)(const Node&)) {
  std::vector<Tensor> result;
  for (BatchedValue& each : batch_values(outputs, leaves, size, descend))
    result.push_back(each.batched || !each.value ? std::move(each.value)
                                                 : repeated(each.value, size));
  return result;
}

}  // namespace fluxion
