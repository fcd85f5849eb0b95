// eval: the graph behind some tensors is planned, bound and run.
#include <set>
#include <unordered_map>

#include "engine/graph/walk.h"
#include "engine/plan_cache.h"

namespace fluxion {

namespace {

// Inner nodes with a handle outside of the walked graph: their values will probably be asked for,
// so the same plan computes them. Another thread may take or drop a handle meanwhile. That changes
// what is computed now and what later, never a value.
std::vector<Tensor> held_outside(const std::vector<WalkedNode>& order) {
  std::unordered_map<const Node*, long> internal;  // handles in the graph and in the walk
  for (const WalkedNode& walked : order)
    for (const Tensor& input : walked.inputs) internal[input.node().get()] += 2;
  std::vector<Tensor> held;
  for (const WalkedNode& walked : order) {
    if (walked.inputs.empty() || walked.node.use_count() - 1 <= internal[walked.node.get()])
      continue;
    for (std::size_t output = 0; output < walked.node->outputs.size(); ++output)
      held.emplace_back(walked.node, static_cast<int>(output));
  }
  return held;
}

}  // namespace

void eval(std::span<const Tensor> tensors, const EvalOptions& options) {
  std::vector<Tensor> outputs;
  for (const Tensor& tensor : tensors) {
    if (!tensor) throw Error("eval: a handle holds no tensor");
    if (!tensor.node()->value(tensor.output())) outputs.push_back(tensor);
    if (tensor.device() != tensors.front().device())
      throw DeviceError("eval: the tensors live on different devices");
  }
  if (outputs.empty()) return;
  {
    std::set<std::pair<const Node*, int>> wanted;
    for (const Tensor& output : outputs) wanted.insert({output.node().get(), output.output()});
    const auto order = walk(outputs, [](const Node& node) { return !node.evaluated(); });
    for (Tensor& held : held_outside(order))
      if (held.node()->pending(held.output()) &&
          wanted.insert({held.node().get(), held.output()}).second)
        outputs.push_back(std::move(held));
  }
  const plan::Canonical canonical = plan::canonicalise({}, outputs);
  const Device& device = outputs.front().device();
  const auto plan = device.plans().find_or_make(canonical.graph, device.backend());
  BoundCall call = plan->bind(buffers_of(canonical.inputs), canonical.scalars);
  call.allocate(device.backend());
  call.run(options.run);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    outputs[i].node()->publish(outputs[i].output(), call.results()[i]);
}

}  // namespace fluxion
