#include "engine/plan/steps.h"

#include <algorithm>
#include <numeric>

#include "engine/graph/op_names.h"
#include "engine/graph/shape_rules.h"

namespace fluxion::plan {

namespace {

std::int64_t product(const Dims& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies<>());
}
std::int64_t product(const Shape& shape, std::int64_t begin, std::int64_t end) {
  std::int64_t result = 1;
  for (std::int64_t axis = begin; axis < end; ++axis) result *= shape[axis];
  return result;
}

std::int64_t axes_of(const Shape& shape) {
  return std::count_if(shape.begin(), shape.end(), [](std::int64_t size) { return size != 1; });
}

// The number of blocks that a transpose moves: axes that stay neighbours are one block. Axis k of
// the result is axis order[k] of the operand.
std::int64_t blocks_in(const std::vector<std::size_t>& order) {
  std::int64_t blocks = order.empty() ? 0 : 1;
  for (std::size_t k = 1; k < order.size(); ++k) blocks += order[k] != order[k - 1] + 1 ? 1 : 0;
  return blocks;
}

// A transpose in blocks: without axes of size 1, and with axes that stay neighbours merged.
struct Blocks {
  Dims sizes;                      // of the operand
  std::vector<std::size_t> order;  // block k of the result is block order[k] of the operand
};
Blocks blocks_of(const Shape& shape, const Dims& permutation) {
  // Starts of blocks, as axes of the operand.
  std::vector<std::int64_t> long_axes;
  for (std::int64_t axis = 0; axis < shape.rank(); ++axis)
    if (shape[axis] != 1) long_axes.push_back(axis);
  std::vector<std::size_t> order;
  for (const std::int64_t axis : permutation)
    if (shape[axis] != 1)
      order.push_back(static_cast<std::size_t>(
          std::lower_bound(long_axes.begin(), long_axes.end(), axis) - long_axes.begin()));
  std::vector<std::size_t> first_of_block;
  for (std::size_t k = 0; k < order.size(); ++k)
    if (k == 0 || order[k] != order[k - 1] + 1) first_of_block.push_back(order[k]);
  std::vector<std::size_t> sorted = first_of_block;
  std::sort(sorted.begin(), sorted.end());
  Blocks blocks;
  for (std::size_t b = 0; b < sorted.size(); ++b) {
    const std::size_t end = b + 1 < sorted.size() ? sorted[b + 1] : long_axes.size();
    std::int64_t size = 1;
    for (std::size_t k = sorted[b]; k < end; ++k) size *= shape[long_axes[k]];
    blocks.sizes.push_back(size);
  }
  for (const std::size_t first : first_of_block)
    blocks.order.push_back(static_cast<std::size_t>(
        std::lower_bound(sorted.begin(), sorted.end(), first) - sorted.begin()));
  return blocks;
}

// The axes that a slice, flip, pad or broadcast changes.
Dims busy_axes(const Graph& graph, const GraphNode& node) {
  const Shape &from = graph.type(node.inputs[0]).shape, &to = node.outputs[0].shape;
  Dims axes;
  switch (node.op) {
    case Op::slice: {
      const auto& a = std::get<SliceAttributes>(node.attributes);
      for (std::int64_t axis = 0; axis < from.rank(); ++axis) {
        const auto k = static_cast<std::size_t>(axis);
        if (a.start[k] != 0 || a.step[k] != 1 || a.stop[k] != from[axis]) axes.push_back(axis);
      }
      break;
    }
    case Op::pad: {
      const auto& a = std::get<PadAttributes>(node.attributes);
      for (std::int64_t axis = 0; axis < from.rank(); ++axis)
        if (a.low[static_cast<std::size_t>(axis)] != 0 ||
            a.high[static_cast<std::size_t>(axis)] != 0)
          axes.push_back(axis);
      break;
    }
    case Op::flip:
      for (const std::int64_t axis : std::get<AxesAttributes>(node.attributes).axes)
        if (from[axis] != 1) axes.push_back(axis);
      break;
    case Op::broadcast_to:
      for (std::int64_t axis = 0; axis < to.rank(); ++axis) {
        const std::int64_t own = axis - (to.rank() - from.rank());
        if (to[axis] != 1 && (own < 0 || from[own] == 1)) axes.push_back(axis);
      }
      break;
    default:
      break;
  }
  return axes;
}

// The reduced axes that have more than one element.
Dims reduced_axes(const Graph& graph, const GraphNode& node) {
  Dims axes;
  for (const std::int64_t axis : std::get<AxesAttributes>(node.attributes).axes)
    if (graph.type(node.inputs[0]).shape[axis] != 1) axes.push_back(axis);
  return axes;
}

// The number of runs of kept and of reduced axes: a reduction's tape has an axis for each.
std::int64_t runs_of(const Graph& graph, const GraphNode& node) {
  const Shape& shape = graph.type(node.inputs[0]).shape;
  const Dims reduced = reduced_axes(graph, node);
  std::int64_t runs = 0;
  bool last = false;
  for (std::int64_t axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] == 1) continue;
    const bool now = std::find(reduced.begin(), reduced.end(), axis) != reduced.end();
    runs += runs == 0 || now != last ? 1 : 0;
    last = now;
  }
  return runs;
}

class StepWriter {
 public:
  StepWriter(Graph& graph, const GraphNode& node, Limit broken, const KernelLimits& limits,
             std::set<NodeId>& stored)
      : graph_(graph), node_(node), broken_(broken), limits_(limits), stored_(stored) {}

  Value write() {
    switch (info(node_.op).op_class) {
      case OpClass::reduction:
        return broken_ == Limit::axes ? reduce_at_the_end() : reduce_in_stages();
      case OpClass::movement:
        break;
      default:
        return on_merged_axes();
    }
    if (node_.op == Op::transpose) return transpose();
    if (node_.op == Op::concat) return concat();
    return halves();
  }

 private:
  Value x() const { return node_.inputs[0]; }
  const Shape& shape(Value value) const { return graph_.type(value).shape; }

  Value emit(Op op, Attributes attributes, std::vector<Value> inputs) {
    std::vector<TensorType> types;
    for (const Value input : inputs) types.push_back(graph_.type(input));
    std::vector<TensorType> outputs = infer_types(op, attributes, types, Location::current());
    return {graph_.nodes.add({op, std::move(attributes), std::move(inputs), std::move(outputs)}),
            0};
  }
  Value reshape(Value value, const Dims& sizes) {
    return shape(value).dims() == sizes ? value
                                        : emit(Op::reshape, ShapeAttributes{sizes}, {value});
  }
  Value in_memory(Value value) {
    const Value copy = emit(Op::identity, NoAttributes{}, {value});
    stored_.insert(copy.node);
    return copy;
  }

  // In each step, moves as many blocks of axes to their final places as a kernel's axes allow.
  Value transpose() {
    Blocks blocks = blocks_of(shape(x()), std::get<AxesAttributes>(node_.attributes).axes);
    Value value = x();
    while (true) {
      const std::size_t count = blocks.order.size();
      std::size_t placed = 0;
      while (placed < count && blocks.order[placed] == placed) ++placed;
      // Find the most blocks that can move at once: the blocks in place come first, then the moved
      // ones, then the others in their order.
      std::vector<std::size_t> best;
      for (std::size_t end = placed + 1; end <= count; ++end) {
        std::vector<std::size_t> order(blocks.order.begin(),
                                       blocks.order.begin() + static_cast<std::ptrdiff_t>(end));
        for (std::size_t block = 0; block < count; ++block)
          if (std::find(order.begin(), order.end(), block) == order.end()) order.push_back(block);
        if (blocks_in(order) > limits_.max_axes) break;
        best = std::move(order);
      }
      value = reshape(value, blocks.sizes);
      Dims permutation(best.begin(), best.end());
      value = emit(Op::transpose, AxesAttributes{permutation}, {value});
      if (best == blocks.order) return reshape(value, node_.outputs[0].shape.dims());
      value = in_memory(value);
      Blocks rest;
      for (const std::size_t block : best) rest.sizes.push_back(blocks.sizes[block]);
      for (const std::size_t block : blocks.order)
        rest.order.push_back(
            static_cast<std::size_t>(std::find(best.begin(), best.end(), block) - best.begin()));
      blocks = std::move(rest);
    }
  }

  // Slice, flip, pad, broadcast: along half of the axes, then along the others.
  Value halves() {
    Dims axes = busy_axes(graph_, node_);
    // Axes that shrink the tensor come first.
    const Shape &to = node_.outputs[0].shape, from = shape(x());
    const auto growth = [&](std::int64_t axis) {
      const std::int64_t own = axis - (to.rank() - from.rank());
      return static_cast<double>(to[axis]) /
             static_cast<double>(std::max<std::int64_t>(own < 0 ? 1 : from[own], 1));
    };
    std::stable_sort(axes.begin(), axes.end(),
                     [&](std::int64_t a, std::int64_t b) { return growth(a) < growth(b); });
    Dims first(axes.begin(), axes.begin() + static_cast<std::ptrdiff_t>(axes.size() / 2));
    std::sort(first.begin(), first.end());
    const auto in_first = [&](std::int64_t axis) {
      return std::binary_search(first.begin(), first.end(), axis);
    };
    switch (node_.op) {
      case Op::slice: {
        const auto& all = std::get<SliceAttributes>(node_.attributes);
        SliceAttributes before = all, after = all;
        Dims between = from.dims();
        for (std::int64_t axis = 0; axis < from.rank(); ++axis) {
          const auto k = static_cast<std::size_t>(axis);
          if (in_first(axis)) between[k] = to[axis];
          SliceAttributes& other = in_first(axis) ? after : before;
          other.start[k] = 0, other.step[k] = 1;
          other.stop[k] = in_first(axis) ? between[k] : from[axis];
        }
        return emit(Op::slice, after, {in_memory(emit(Op::slice, before, {x()}))});
      }
      case Op::pad: {
        const auto& all = std::get<PadAttributes>(node_.attributes);
        PadAttributes before = all, after = all;
        for (std::int64_t axis = 0; axis < from.rank(); ++axis) {
          PadAttributes& other = in_first(axis) ? after : before;
          other.low[static_cast<std::size_t>(axis)] = other.high[static_cast<std::size_t>(axis)] =
              0;
        }
        return emit(Op::pad, after, {in_memory(emit(Op::pad, before, {x()}))});
      }
      case Op::flip: {
        Dims second;
        for (const std::int64_t axis : axes)
          if (!in_first(axis)) second.push_back(axis);
        std::sort(second.begin(), second.end());
        return emit(Op::flip, AxesAttributes{second},
                    {in_memory(emit(Op::flip, AxesAttributes{first}, {x()}))});
      }
      default: {
        Dims start(static_cast<std::size_t>(to.rank() - from.rank()), 1);
        start.insert(start.end(), from.begin(), from.end());
        Dims between = start;
        for (const std::int64_t axis : first) between[static_cast<std::size_t>(axis)] = to[axis];
        const Value half = emit(Op::broadcast_to, ShapeAttributes{between}, {reshape(x(), start)});
        return emit(Op::broadcast_to, ShapeAttributes{to.dims()}, {in_memory(half)});
      }
    }
  }

  Value concat() {
    const auto middle = node_.inputs.begin() + static_cast<std::ptrdiff_t>(node_.inputs.size() / 2);
    std::vector<Value> parts;
    for (const std::vector<Value>& pieces : {std::vector<Value>(node_.inputs.begin(), middle),
                                             std::vector<Value>(middle, node_.inputs.end())})
      parts.push_back(pieces.size() == 1 ? pieces[0]
                                         : in_memory(emit(Op::concat, node_.attributes, pieces)));
    return emit(Op::concat, node_.attributes, parts);
  }

  // Moves kept axes to the front and reduced ones to the end, which leaves two axes.
  Value reduce_at_the_end() {
    const Dims reduced = reduced_axes(graph_, node_);
    const Shape from = shape(x());
    Dims permutation, sizes{1, 1};
    for (const bool last : {false, true})
      for (std::int64_t axis = 0; axis < from.rank(); ++axis) {
        if ((std::find(reduced.begin(), reduced.end(), axis) != reduced.end()) != last) continue;
        permutation.push_back(axis);
        sizes[last ? 1 : 0] *= from[axis];
      }
    const Value moved = in_memory(emit(Op::transpose, AxesAttributes{permutation}, {x()}));
    const Value result = emit(node_.op, AxesAttributes{{1}}, {reshape(moved, sizes)});
    return reshape(result, node_.outputs[0].shape.dims());
  }

  // Makes rows shorter: reduces over all but the outermost reduced axis, then over that one.
  Value reduce_in_stages() {
    const Dims reduced = reduced_axes(graph_, node_);
    const Value first =
        emit(node_.op, AxesAttributes{Dims(reduced.begin() + 1, reduced.end())}, {x()});
    stored_.insert(first.node);
    return emit(node_.op, AxesAttributes{{reduced[0]}}, {first});
  }

  // For an op that works along one axis, or none: merges the axes before it, and those after it.
  Value on_merged_axes() {
    const auto flat = [&](Value value) { return reshape(value, {shape(value).elements()}); };
    // [outer, `along`, inner] of a value with these axes around.
    const auto around = [&](Value value, std::int64_t begin, std::int64_t end) {
      const Shape sizes = shape(value);
      return reshape(value, {product(sizes, 0, begin), product(sizes, begin, end),
                             product(sizes, end, sizes.rank())});
    };
    std::vector<Value> inputs = node_.inputs;
    Attributes attributes = node_.attributes;
    switch (node_.op) {
      case Op::random_bits:
        std::get<RandomAttributes>(attributes).shape = {
            product(std::get<RandomAttributes>(attributes).shape)};
        break;
      case Op::after:
        inputs = {flat(inputs[0]), flat(inputs[1])};
        break;
      case Op::argsort: {
        std::int64_t& axis = std::get<SortAttributes>(attributes).axis;
        inputs[0] = around(inputs[0], axis, axis + 1);
        axis = 1;
        break;
      }
      default: {
        std::int64_t& axis = std::get<AxisAttributes>(attributes).axis;
        if (node_.op == Op::take) {
          inputs = {around(inputs[0], axis, axis + 1), flat(inputs[1])};
        } else if (node_.op == Op::index_add) {
          inputs = {around(inputs[0], axis, axis + 1), inputs[1],
                    around(inputs[2], axis, axis + 1)};
        } else {
          for (Value& input : inputs) input = around(input, axis, axis + 1);
        }
        axis = 1;
        break;
      }
    }
    const Value result = emit(node_.op, std::move(attributes), std::move(inputs));
    return reshape(result, node_.outputs[0].shape.dims());
  }

  Graph& graph_;
  const GraphNode& node_;
  const Limit broken_;
  const KernelLimits& limits_;
  std::set<NodeId>& stored_;
};

}  // namespace

bool has_steps(const Graph& graph, const GraphNode& node, Limit broken,
               const KernelLimits& limits) {
  const auto longest = [&] {
    std::int64_t axes = axes_of(node.outputs[0].shape);
    for (const Value input : node.inputs) axes = std::max(axes, axes_of(graph.type(input).shape));
    return axes;
  };
  switch (info(node.op).op_class) {
    case OpClass::reduction:
      return broken == Limit::axes ? runs_of(graph, node) > 2
                                   : reduced_axes(graph, node).size() > 1;
    case OpClass::index:
      return broken == Limit::axes && longest() > 3;
    case OpClass::random:
    case OpClass::order:
      return broken == Limit::axes && longest() > 1;
    case OpClass::movement:
      break;
    default:
      return false;
  }
  switch (node.op) {
    case Op::transpose:
      return static_cast<std::int64_t>(blocks_of(graph.type(node.inputs[0]).shape,
                                                 std::get<AxesAttributes>(node.attributes).axes)
                                           .order.size()) > limits.max_axes;
    case Op::concat:
      return node.inputs.size() > 2;
    default:
      return busy_axes(graph, node).size() > 1;
  }
}

NodeId append_steps(Graph& graph, const GraphNode& node, Limit broken, const KernelLimits& limits,
                    std::set<NodeId>& stored) {
  return StepWriter(graph, node, broken, limits, stored).write().node;
}

}  // namespace fluxion::plan
