// Builds the expansion of a fused op (engine/graph/expansion.h) in a planner's graph.
#include "engine/graph/expansion.h"
#include "engine/graph/op_names.h"
#include "engine/graph/walk.h"
#include "engine/plan/builder.h"

namespace fluxion::plan {

std::vector<Value> expand(Builder& builder, Op op, const Attributes& attributes,
                          const std::vector<Value>& inputs) {
  std::vector<Tensor> leaves;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    leaves.push_back(make_leaf(Op::parameter, IndexAttributes{static_cast<std::int64_t>(i)},
                               builder.type(inputs[i]), Device()));
  const std::vector<Tensor> outputs = expansion(op, attributes, leaves, builder.costs());
  std::unordered_map<const Node*, Value> made;  // the expansion's ops have one output each
  for (const WalkedNode& walked : walk(outputs, [](const Node&) { return true; })) {
    const Node& node = *walked.node;
    Value value;
    if (node.op == Op::parameter) {
      value = inputs[static_cast<std::size_t>(std::get<IndexAttributes>(node.attributes).index)];
    } else if (node.op == Op::constant) {
      value =
          builder.constant(std::get<ValueAttributes>(node.attributes).value, node.outputs[0].dtype);
    } else if (info(node.op).op_class == OpClass::leaf) {
      value = builder.leaf({node.op, node.attributes, {}, node.outputs});
    } else {
      std::vector<Value> operands;
      for (const Tensor& input : walked.inputs) operands.push_back(made.at(input.node().get()));
      value = builder.emit(node.op, node.attributes, std::move(operands));
    }
    made.emplace(&node, value);
  }
  std::vector<Value> result;
  for (const Tensor& output : outputs) result.push_back(made.at(output.node().get()));
  return result;
}

}  // namespace fluxion::plan
