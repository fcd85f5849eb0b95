// Regions under vmap: the body is batched into a new region of the same kind, and its rules are applied to each example.
#include "autograd/batching.h"
#include "autograd/vmap.h"
#include "engine/ops.h"
#include "engine/region.h"

namespace fluxion {

namespace {

using Tensors = std::vector<Tensor>;
using Rule = std::function<Tensors(const Tensors&, const Tensors&)>;

// rule(inputs, vectors) of every example, results with the mapped axis in front. Empty vectors and results are zeros.
Tensors for_each_example(const Rule& rule, const Tensors& inputs, const std::vector<bool>& batched, const Tensors& vectors,
                         const std::vector<bool>& batched_vectors) {
  Tensors values = inputs;
  values.insert(values.end(), vectors.begin(), vectors.end());
  std::vector<MappedAxis> axes;
  for (const auto& flags : {batched, batched_vectors})
    for (const bool flag : flags) axes.push_back(flag ? MappedAxis(0) : not_mapped);
  const MappedLeaves traced(values, axes);
  const auto middle = traced.tensors().begin() + static_cast<std::ptrdiff_t>(inputs.size());
  return traced.batch(rule(Tensors(traced.tensors().begin(), middle), Tensors(middle, traced.tensors().end())));
}

}  // namespace

std::vector<Tensor> batch_region(const BatchCall& call) {
  const std::shared_ptr<const Region> one = call.get<RegionAttributes>().region;
  const std::vector<bool> batched = call.batched;
  auto all = std::make_shared<Region>();
  all->kind = one->kind;
  all->name = one->name;
  all->linear = one->linear;

  BatchedNodes known;
  for (std::size_t i = 0; i < one->parameters.size(); ++i) {
    const Tensor& parameter = one->parameters[i];
    all->parameters.push_back(make_leaf(Op::parameter, parameter.node()->attributes, call.inputs[i].type(), parameter.device()));
    known[parameter.node().get()] = {{all->parameters.back()}, batched[i]};
  }
  // A node with a value depends on no parameter.
  all->outputs = batch_graph(one->outputs, std::move(known), call.size, [](const Node& node) { return !node.evaluated(); });
  for (const TensorType& type : one->types) {
    Dims sizes{call.size};
    sizes.insert(sizes.end(), type.shape.begin(), type.shape.end());
    all->types.push_back({Shape(std::move(sizes)), type.dtype});
  }
  if (one->jvp)
    all->jvp = [one, batched](const Tensors& inputs, const Tensors& tangents) {
      return for_each_example(one->jvp, inputs, batched, tangents, batched);
    };
  if (one->transpose)
    all->transpose = [one, batched](const Tensors& inputs, const Tensors& cotangents) {
      Tensors result = for_each_example(one->transpose, inputs, batched, cotangents, std::vector<bool>(cotangents.size(), true));
      // What every example shares gathers the cotangents of all.
      for (std::size_t i = 0; i < result.size(); ++i)
        if (result[i] && !batched[i]) result[i] = sum(result[i], {0});
      return result;
    };
  return make_nodes(Op::region, RegionAttributes{std::move(all)}, call.inputs);
}

}  // namespace fluxion
