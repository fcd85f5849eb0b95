// Builds a Graph node by node, merges equal nodes (hash-consing) and applies local simplifications.
#pragma once

#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/graph/op_names.h"
#include "engine/plan/graph.h"

namespace fluxion::plan {

class Builder {
 public:
  Builder(Graph empty, const CostModel& costs) : costs_(costs), graph_(std::move(empty)) {}

  // The value of `op` on these inputs: a simpler value, an existing equal node, or a new node.
  Value emit(Op op, Attributes attributes, std::vector<Value> inputs);
  // A leaf, merged with an equal one; an index of 16 bits is one of f32, converted.
  Value leaf(GraphNode node);
  // A scalar constant. A value other than 0 and +-1 becomes an extra run-time scalar.
  Value constant(double value, DType dtype);
  Value broadcast(Value scalar_or_row, const Shape& shape) {
    return emit(Op::broadcast_to, ShapeAttributes{shape.dims()}, {scalar_or_row});
  }

  const CostModel& costs() const { return costs_; }
  const Graph& graph() const { return graph_; }
  Graph take() { return std::move(graph_); }
  const TensorType& type(Value value) const { return graph_.type(value); }
  // The number that all elements of a value are, if it is made of one literal.
  std::optional<double> literal(Value value) const;
  std::vector<double> extra_scalars;

 private:
  std::optional<Value> simpler(Op op, const Attributes& attributes,
                               const std::vector<Value>& inputs);
  std::optional<Value> after(Value x, Value token);
  std::vector<Value> awaited(Value token) const;    // the values that the token is a view of
  Value sum_of_few(Value value, const Dims& axes);  // additions of slices, first to last
  // If `value` is a view of bf16 or f16 elements that were converted to f32, the same view of the
  // unconverted elements: a product converts its operands itself. Else `value`.
  Value before_widening(Value value);
  Value intern(GraphNode node);
  bool is_sum_of_few(const Shape& shape, const Dims& axes) const;

  const CostModel& costs_;
  Graph graph_;
  std::unordered_multimap<std::uint64_t, NodeId> interned_;
  // (view, source of a token) -> the same view, whose buffer waits for the token.
  std::map<std::pair<Value, Value>, Value> awaiting_;
};

// The expansion of a fused op (engine/graph/expansion.h), built here. One value per output.
std::vector<Value> expand(Builder& builder, Op op, const Attributes& attributes,
                          const std::vector<Value>& inputs);

}  // namespace fluxion::plan
