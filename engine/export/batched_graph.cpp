#include "engine/export/batched_graph.h"

#include <algorithm>
#include <variant>

#include "engine/error.h"
#include "engine/export/tagged_bytes.h"
#include "engine/graph/op_names.h"
#include "engine/graph/shape_rules.h"

namespace fluxion {

namespace {

// All integers that may depend on the batch, in the order that Growth states.
std::vector<std::int64_t*> integers_of(StoredGraph& stored) {
  std::vector<std::int64_t*> result;
  const auto add = [&](auto& member) {
    using Member = std::remove_cvref_t<decltype(member)>;
    if constexpr (std::is_same_v<Member, std::int64_t>)
      result.push_back(&member);
    else if constexpr (std::is_same_v<Member, Dims>)
      for (std::int64_t& size : member) result.push_back(&size);
  };
  const auto add_sizes = [&](TensorType& type) {
    for (std::int64_t axis = 0; axis < type.shape.rank(); ++axis)
      result.push_back(&type.shape[axis]);
  };
  for (TensorType& input : stored.graph.inputs) add_sizes(input);
  for (plan::GraphNode& node : stored.graph.nodes) {
    std::visit(
        [&]<class T>(T& attributes) {
          std::apply([&](auto&... members) { (add(members), ...); }, T::members(attributes));
        },
        node.attributes);
    if (node.op == Op::iota)
      for (TensorType& output : node.outputs) add_sizes(output);
  }
  return result;
}

// Gives every node the output types that its operands and attributes now lead to.
void infer_all(StoredGraph& stored) {
  for (plan::GraphNode& node : stored.graph.nodes) {
    if (node.op == Op::parameter) {
      const std::int64_t index = std::get<IndexAttributes>(node.attributes).index;
      if (index < 0 || index >= std::ssize(stored.graph.inputs))
        throw Error("graph '" + stored.name + "': parameter " + std::to_string(index) +
                    " is no input of it");
      const TensorType& type = stored.graph.inputs[static_cast<std::size_t>(index)];
      node.outputs.front() = TensorType(type.shape, type.dtype);
    } else if (info(node.op).op_class == OpClass::leaf) {
      node.outputs.front() = TensorType(node.outputs.front().shape, node.outputs.front().dtype);
    } else {
      std::vector<TensorType> operands;
      for (const plan::Value input : node.inputs) operands.push_back(stored.graph.type(input));
      node.outputs = infer_types(node.op, node.attributes, operands, Location::current());
    }
  }
}

}  // namespace

StoredGraph at_batch(const BatchedGraph& graph, std::int64_t batch) {
  if (batch < 1 || batch > most_in_file)
    throw Error("graph '" + graph.one.name + "': a batch of " + std::to_string(batch));
  StoredGraph result = graph.one;
  const std::vector<std::int64_t*> integers = integers_of(result);
  for (const auto& [integer, per_sample] : graph.growths) {
    std::int64_t more = 0;
    if (integer >= integers.size() || __builtin_mul_overflow(per_sample, batch - 1, &more) ||
        __builtin_add_overflow(*integers[integer], more, integers[integer]))
      throw Error("graph '" + result.name + "': integer " + std::to_string(integer) +
                  " can't grow with a batch of " + std::to_string(batch));
  }
  infer_all(result);
  check(result);
  return result;
}

BatchedGraph batched(const std::function<StoredGraph(std::int64_t batch)>& trace) {
  StoredGraph two = trace(2), three = trace(3);
  BatchedGraph result{two, {}};
  const std::vector<std::int64_t*> one = integers_of(result.one), at_two = integers_of(two),
                                   at_three = integers_of(three);
  const auto refuse = [&] {
    throw Error("graph '" + two.name +
                "': its graphs for several batches differ in more than sizes that grow evenly with "
                "the batch; it can be stored for one batch alone");
  };
  if (at_two.size() != at_three.size()) refuse();
  for (std::size_t i = 0; i < one.size(); ++i) {
    const std::int64_t growth = *at_three[i] - *at_two[i];
    if (growth == 0) continue;
    *one[i] -= growth;
    result.growths.push_back({static_cast<std::uint32_t>(i), growth});
  }
  infer_all(result.one);
  check(result.one);
  if (at_batch(result, 2) != two || at_batch(result, 3) != three || at_batch(result, 7) != trace(7))
    refuse();
  return result;
}

}  // namespace fluxion
