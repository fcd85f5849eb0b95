// Regions under vmap: a new region of the same kind, whose body is the old body batched and whose
// rules apply the old rules to each example.
#include <utility>

#include "autograd/batching.h"
#include "autograd/rules.h"
#include "autograd/vmap.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/graph/region.h"

namespace fluxion {

namespace {

using Tensors = std::vector<Tensor>;
using CustomRule = std::function<Tensors(const Tensors&, const Tensors&)>;

// An evaluated node can't depend on a leaf without a value.
bool without_value(const Node& node) { return !node.evaluated(); }

// rule(inputs, moving) for all examples. Results have the mapped axis in front; empty tensors stay
// empty. A rule may hold tensors of the mapped graph, so its results may depend on that graph's
// `leaves` too.
Tensors for_each_example(const CustomRule& rule, const Tensors& inputs,
                         const std::vector<bool>& batched, const Tensors& moving,
                         const std::vector<bool>& batched_moving,
                         const std::vector<BatchedLeaf>& leaves) {
  Tensors values = inputs;
  values.insert(values.end(), moving.begin(), moving.end());
  std::vector<MappedAxis> axes;
  for (const auto* flags : {&batched, &batched_moving})
    for (const bool flag : *flags) axes.push_back(flag ? MappedAxis(0) : not_mapped);
  const MappedLeaves traced(values, axes);
  const auto middle = traced.tensors().begin() + static_cast<std::ptrdiff_t>(inputs.size());
  const Tensors made =
      rule(Tensors(traced.tensors().begin(), middle), Tensors(middle, traced.tensors().end()));
  std::vector<BatchedLeaf> all = traced.leaves();
  all.insert(all.end(), leaves.begin(), leaves.end());
  return batch_graph(made, all, traced.size(), without_value);
}

// Gives the region parameters for the operands of all examples. Returns the graph's leaves, and the
// former parameters with those in their place.
std::vector<BatchedLeaf> renew_parameters(Region& region, const BatchCall& call) {
  std::vector<BatchedLeaf> leaves(call.leaves.begin(), call.leaves.end());
  for (std::size_t i = 0; i < region.parameters.size(); ++i) {
    const Tensor made = region_parameter(call.inputs[i].type(), call.inputs[i].device());
    leaves.push_back({std::exchange(region.parameters[i], made), made, call.batched[i]});
  }
  return leaves;
}

}  // namespace

std::vector<Tensor> batch_region(const BatchCall& call) {
  const std::shared_ptr<const Region> one = call.get<RegionAttributes>().region;
  const std::vector<bool> batched = call.batched;
  Region all = *one;
  const std::vector<BatchedLeaf> of_graph(call.leaves.begin(), call.leaves.end());
  const std::vector<BatchedLeaf> leaves = renew_parameters(all, call);
  all.outputs = batch_graph(one->outputs, leaves, call.size, without_value);
  for (TensorType& type : all.types) type.shape = with_leading_axis(call.size, type.shape);
  if (one->jvp)
    all.jvp = [one, batched, of_graph](const Tensors& inputs, const Tensors& tangents) {
      return for_each_example(one->jvp, inputs, batched, tangents, batched, of_graph);
    };
  if (one->transpose)
    all.transpose = [one, batched, of_graph](const Tensors& inputs, const Tensors& cotangents) {
      std::vector<bool> all_batched(cotangents.size(), true), of_inputs = batched;
      of_inputs.resize(inputs.size(), true);  // outputs follow the inputs
      Tensors result =
          for_each_example(one->transpose, inputs, of_inputs, cotangents, all_batched, of_graph);
      // An input that all examples share gets the sum of their cotangents.
      for (std::size_t i = 0; i < result.size(); ++i)
        if (result[i] && !of_inputs[i])
          result[i] = in_f32(result[i], [](const Tensor& u) { return sum(u, {0}); });
      return result;
    };
  return make_nodes(Op::region, RegionAttributes{shared(std::move(all))}, call.inputs);
}

namespace {

// Leaves that stand for values which are the same for all examples; empty tensors stay empty.
Tensors leaves_for(const Tensors& values, std::vector<BatchedLeaf>& leaves) {
  Tensors result;
  for (const Tensor& value : values) {
    result.push_back(value ? region_parameter(value.type(), value.device()) : Tensor());
    if (value) leaves.push_back({result.back(), value, false});
  }
  return result;
}

// Tensors of the graph for one example as they are for all; they must not depend on a mapped leaf.
Tensors same_for_all(const Tensors& made, const std::vector<BatchedLeaf>& leaves,
                     std::int64_t size) {
  Tensors result;
  for (BatchedValue& each : batch_values(made, leaves, size, without_value)) {
    if (each.batched)
      throw Error(
          "vmap: the rule of a custom_jvp, custom_linear or custom_vjp uses a mapped tensor, but "
          "the arguments of its function are not mapped, so there is one result for all examples; "
          "make that tensor an argument of the function");
    result.push_back(std::move(each.value));
  }
  return result;
}

}  // namespace

std::vector<Tensor> share_region(const BatchCall& call) {
  const std::shared_ptr<const Region> one = call.get<RegionAttributes>().region;
  const std::vector<BatchedLeaf> of_graph(call.leaves.begin(), call.leaves.end());
  Region all = *one;
  if (one->holds_rules)
    all.outputs = same_for_all(one->outputs, renew_parameters(all, call), call.size);
  const auto shared_rule = [&](const CustomRule& rule) -> CustomRule {
    return [rule, of_graph, size = call.size](const Tensors& inputs, const Tensors& moving) {
      // Leaves in place of the values: what these were made of need not be walked.
      std::vector<BatchedLeaf> leaves = of_graph;
      const Tensors values = leaves_for(inputs, leaves), along = leaves_for(moving, leaves);
      return same_for_all(rule(values, along), leaves, size);
    };
  };
  if (one->jvp) all.jvp = shared_rule(one->jvp);
  if (one->transpose) all.transpose = shared_rule(one->transpose);
  return make_nodes(Op::region, RegionAttributes{shared(std::move(all))}, call.inputs);
}

}  // namespace fluxion
