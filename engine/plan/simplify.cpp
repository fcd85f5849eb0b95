// Simplification: one pass in topological order through a Builder, which merges equal nodes and
// uses a simpler value wherever there is one.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <set>

#include "engine/graph/expansion.h"
#include "engine/graph/op_names.h"
#include "engine/graph/shape_rules.h"
#include "engine/plan/builder.h"

namespace fluxion::plan {

namespace {

bool is_identity(const Dims& permutation) {
  for (std::size_t k = 0; k < permutation.size(); ++k)
    if (permutation[k] != static_cast<std::int64_t>(k)) return false;
  return true;
}

// Per node: whether some output depends on it.
Indexed<NodeId, bool> needed(const Graph& graph) {
  Indexed<NodeId, bool> result(graph.nodes.size());
  for (const Value output : graph.outputs) result[output.node] = true;
  for (const NodeId n : graph.nodes.reversed_ids())
    if (result[n])
      for (const Value input : graph[n].inputs) result[input.node] = true;
  return result;
}

bool swaps_last_two(Dims permutation) {
  if (permutation.size() < 2) return false;
  std::swap(permutation[permutation.size() - 1], permutation[permutation.size() - 2]);
  return is_identity(permutation);
}

}  // namespace

Value Builder::intern(GraphNode node) {
  const std::uint64_t key = hash(node);
  const auto [begin, end] = interned_.equal_range(key);
  for (auto found = begin; found != end; ++found)
    if (graph_[found->second] == node) return {found->second, 0};
  const NodeId made = graph_.nodes.add(std::move(node));
  interned_.emplace(key, made);
  return {made, 0};
}

// Kernels have no 16-bit registers: such an index is rounded in memory, like any 16-bit value.
Value Builder::leaf(GraphNode node) {
  const DType dtype = node.outputs[0].dtype;
  if (node.op != Op::iota || (dtype != DType::bf16 && dtype != DType::f16))
    return intern(std::move(node));
  node.outputs[0].dtype = DType::f32;
  return emit(Op::convert, DTypeAttributes{dtype}, {intern(std::move(node))});
}

Value Builder::constant(double value, DType dtype) {
  GraphNode node{Op::constant, ValueAttributes{0}, {}, {{{}, dtype}}};
  if ((value == 0 && !std::signbit(value)) || value == 1 || value == -1) {
    node.attributes = ValueAttributes{value};
    return intern(std::move(node));
  }
  const std::int32_t base = graph_.scalars - static_cast<std::int32_t>(extra_scalars.size());
  const auto same = [&](double other) {
    return std::bit_cast<std::uint64_t>(other) == std::bit_cast<std::uint64_t>(value);
  };
  const auto found = std::find_if(extra_scalars.begin(), extra_scalars.end(), same);
  node.scalar = base + static_cast<std::int32_t>(found - extra_scalars.begin());
  if (found == extra_scalars.end()) {
    extra_scalars.push_back(value);
    ++graph_.scalars;
  }
  return intern(std::move(node));
}

std::optional<double> Builder::literal(Value value) const {
  const GraphNode* node = &graph_[value];
  while (node->op == Op::broadcast_to || node->op == Op::reshape) node = &graph_[node->inputs[0]];
  if (node->op != Op::constant || node->scalar >= 0) return std::nullopt;
  return std::get<ValueAttributes>(node->attributes).value;
}

// Whether a sum over `axes` adds few elements that are not adjacent in memory, as in pools and
// enlarged images. It then becomes a sum of views, which adds whole rows of the last axis.
bool Builder::is_sum_of_few(const Shape& shape, const Dims& axes) const {
  std::int64_t count = 1;
  for (const std::int64_t axis : axes) count *= shape[axis];
  return count >= 1 && count <= costs_.max_summed_views && axes.back() != shape.rank() - 1 &&
         shape[shape.rank() - 1] >= costs_.min_summed_row;
}

Value Builder::sum_of_few(Value value, const Dims& axes) {
  SliceAttributes at{{}, type(value).shape.dims(), {}};
  at.start.assign(at.stop.size(), 0), at.step.assign(at.stop.size(), 1);
  for (const std::int64_t axis : axes) at.stop[static_cast<std::size_t>(axis)] = 1;
  std::optional<Value> total;
  const Dims sizes = type(value).shape.dims();
  while (true) {
    const Value part = emit(Op::slice, at, {value});
    total = total ? emit(Op::add, NoAttributes{}, {*total, part}) : part;
    // Advance to the next position, the last axis fastest.
    std::size_t k = axes.size();
    for (; k > 0; --k) {
      const auto axis = static_cast<std::size_t>(axes[k - 1]);
      const bool more = at.stop[axis] < sizes[axis];
      at.start[axis] = more ? at.start[axis] + 1 : 0;
      at.stop[axis] = at.start[axis] + 1;
      if (more) break;
    }
    if (k == 0) return *total;
  }
}

Value Builder::before_widening(Value value) {
  std::vector<Value> views;
  Value source = value;
  while (info(graph_[source].op).op_class == OpClass::movement && graph_[source].op != Op::concat) {
    views.push_back(source);
    source = graph_[source].inputs[0];
  }
  if (graph_[source].op != Op::convert || type(source).dtype != DType::f32) return value;
  source = graph_[source].inputs[0];
  if (type(source).dtype != DType::bf16 && type(source).dtype != DType::f16) return value;
  for (auto view = views.rbegin(); view != views.rend(); ++view)
    source = emit(graph_[*view].op, graph_[*view].attributes, {source});
  return source;
}

std::optional<Value> Builder::simpler(Op op, const Attributes& attributes,
                                      const std::vector<Value>& inputs) {
  const auto shape = [&](std::size_t i) -> const Shape& { return type(inputs[i]).shape; };
  const auto is = [&](std::size_t i, double number) {
    const auto value = literal(inputs[i]);
    return value && *value == number;
  };
  // A copy, because emit() below may move the nodes.
  const GraphNode first = inputs.empty() ? GraphNode{} : graph_[inputs[0]];
  switch (op) {
    case Op::identity:
    case Op::stop_gradient:
      return inputs[0];
    case Op::neg:
      if (first.op == Op::neg) return first.inputs[0];
      break;
    case Op::convert:
      if (type(inputs[0]).dtype == std::get<DTypeAttributes>(attributes).dtype) return inputs[0];
      break;
    // x + 0 is x except for -0, where it is +0. This keeps -0: no formula of the library depends on
    // the sign of a zero.
    case Op::add:
      if (is(0, 0)) return inputs[1];
      if (is(1, 0)) return inputs[0];
      break;
    case Op::sub:
      if (is(1, 0)) return inputs[0];
      break;
    case Op::strong_mul:
      for (const std::size_t i : {0u, 1u})
        if (is(i, 0)) return inputs[i];
      [[fallthrough]];
    case Op::mul:
      for (const std::size_t i : {0u, 1u}) {
        if (is(i, 1)) return inputs[1 - i];
        if (is(i, -1)) return emit(Op::neg, NoAttributes{}, {inputs[1 - i]});
      }
      break;
    case Op::div:
    case Op::strong_div:
      if (is(1, 1)) return inputs[0];
      break;
    case Op::where:
      if (inputs[1] == inputs[2]) return inputs[1];
      break;
    case Op::reshape: {
      const Shape to(std::get<ShapeAttributes>(attributes).shape);
      if (shape(0) == to) return inputs[0];
      if (first.op == Op::reshape) return emit(op, attributes, {first.inputs[0]});
      // A broadcast scalar can be broadcast to any shape directly.
      if (first.op == Op::broadcast_to && type(first.inputs[0]).shape.rank() == 0)
        return broadcast(first.inputs[0], to);
      if (first.op == Op::constant) return broadcast(inputs[0], to);
      break;
    }
    case Op::transpose: {
      const Dims& axes = std::get<AxesAttributes>(attributes).axes;
      if (is_identity(axes)) return inputs[0];
      if (first.op == Op::transpose) {
        const Dims& inner = std::get<AxesAttributes>(first.attributes).axes;
        Dims composed;
        for (const std::int64_t axis : axes)
          composed.push_back(inner[static_cast<std::size_t>(axis)]);
        return emit(op, AxesAttributes{composed}, {first.inputs[0]});
      }
      break;
    }
    case Op::broadcast_to:
      if (shape(0).dims() == std::get<ShapeAttributes>(attributes).shape) return inputs[0];
      if (first.op == Op::broadcast_to) return emit(op, attributes, {first.inputs[0]});
      break;
    case Op::slice: {
      const auto& a = std::get<SliceAttributes>(attributes);
      const auto whole = [&](std::size_t axis) {
        return a.start[axis] == 0 && a.step[axis] == 1 && a.stop[axis] == shape(0).dims()[axis];
      };
      bool all = true;
      for (std::size_t axis = 0; axis < a.start.size(); ++axis) all = all && whole(axis);
      if (all) return inputs[0];
      break;
    }
    case Op::pad: {
      const auto& a = std::get<PadAttributes>(attributes);
      const auto zero = [](std::int64_t size) { return size == 0; };
      if (std::all_of(a.low.begin(), a.low.end(), zero) &&
          std::all_of(a.high.begin(), a.high.end(), zero))
        return inputs[0];
      // Padding with another value than 0: a padded mask chooses between the value and x.
      if (a.value != 0 || std::signbit(a.value)) {
        const PadAttributes with_zero{a.low, a.high, 0};
        const DType dtype = type(inputs[0]).dtype;
        const Value inside =
            emit(op, with_zero, {broadcast(constant(1, DType::boolean), shape(0))});
        const Value padded = emit(op, with_zero, inputs);
        const Shape whole = type(padded).shape;
        return emit(Op::where, NoAttributes{},
                    {inside, padded, broadcast(constant(a.value, dtype), whole)});
      }
      break;
    }
    case Op::sum:
    case Op::max:
    case Op::min: {
      Dims axes;
      for (const std::int64_t axis : std::get<AxesAttributes>(attributes).axes)
        if (shape(0)[axis] != 1) axes.push_back(axis);
      if (axes.empty()) return inputs[0];
      if (axes != std::get<AxesAttributes>(attributes).axes)
        return emit(op, AxesAttributes{axes}, inputs);
      if (op == Op::sum && info(first.op).op_class == OpClass::movement &&
          is_sum_of_few(shape(0), axes))
        return sum_of_few(inputs[0], axes);
      break;
    }
    case Op::matmul: {
      const std::vector<Value> stored{before_widening(inputs[0]), before_widening(inputs[1])};
      if (stored != inputs) return emit(op, attributes, stored);
      break;
    }
    case Op::after:
      return after(inputs[0], inputs[1]);
    default:
      break;
  }
  // An elementwise op on values broadcast from one smaller shape is computed at that shape. (i64
  // is not moved: its conversion comes last.)
  const bool to_i64 =
      op == Op::convert && std::get<DTypeAttributes>(attributes).dtype == DType::i64;
  if (info(op).op_class == OpClass::elementwise && first.op == Op::broadcast_to && !to_i64) {
    const Shape small = type(first.inputs[0]).shape, large = shape(0);
    std::vector<Value> sources;
    for (const Value input : inputs) {
      const GraphNode& node = graph_[input];
      if (node.op != Op::broadcast_to || type(node.inputs[0]).shape != small) return std::nullopt;
      sources.push_back(node.inputs[0]);
    }
    return broadcast(emit(op, attributes, sources), large);
  }
  return std::nullopt;
}

std::vector<Value> Builder::awaited(Value token) const {
  std::vector<Value> sources, pending{token};
  std::set<Value> seen;
  while (!pending.empty()) {
    const Value value = pending.back();
    pending.pop_back();
    const GraphNode& node = graph_[value];
    if (info(node.op).op_class != OpClass::movement)
      sources.push_back(value);
    else
      for (std::size_t i = node.inputs.size(); i-- > 0;)
        if (seen.insert(node.inputs[i]).second) pending.push_back(node.inputs[i]);
  }
  return sources;
}

std::optional<Value> Builder::after(Value x, Value token) {
  // The token is known when all buffers that it is a view of are written. A token that is a leaf is
  // known from the start: it orders nothing, but still keeps x from being merged with its twin.
  const std::vector<Value> sources = awaited(token);
  if (sources.size() > 1) {
    for (const Value source : sources) x = emit(Op::after, NoAttributes{}, {x, source});
    return x;
  }
  const Value known = info(graph_[sources[0]].op).op_class == OpClass::leaf ? x : sources[0];
  // A barrier waits for the buffer behind a view. Literals are never recomputed.
  const GraphNode node = graph_[x];
  if (info(node.op).op_class == OpClass::leaf && node.op != Op::parameter) return x;
  if (info(node.op).op_class == OpClass::movement) {
    const std::pair key(x, sources[0]);
    if (const auto found = awaiting_.find(key); found != awaiting_.end()) return found->second;
    std::vector<Value> pieces;
    for (const Value piece : node.inputs)
      pieces.push_back(emit(Op::after, NoAttributes{}, {piece, sources[0]}));
    return awaiting_[key] = emit(node.op, node.attributes, std::move(pieces));
  }
  if (known == token) return std::nullopt;
  return emit(Op::after, NoAttributes{}, {x, known});
}

Value Builder::emit(Op op, Attributes attributes, std::vector<Value> inputs) {
  if (const auto value = simpler(op, attributes, inputs)) return *value;
  std::vector<TensorType> types;
  for (const Value input : inputs) types.push_back(type(input));
  std::vector<TensorType> outputs = infer_types(op, attributes, types, Location::current());
  return intern({op, std::move(attributes), std::move(inputs), std::move(outputs)});
}

bool has_kernel(const GraphNode& node, const KernelLimits& limits) {
  if (!is_attention(node.op)) return false;
  const Shape& q = node.outputs[0].shape;
  const std::size_t inputs = node.inputs.size(), outputs = node.outputs.size();
  return limits.max_attention_head > 0 && q[q.rank() - 1] <= limits.max_attention_head &&
         inputs <= static_cast<std::size_t>(limits.max_loads) &&
         outputs <= static_cast<std::size_t>(limits.max_stores) &&
         inputs + outputs <= static_cast<std::size_t>(limits.max_buffers);
}

namespace {

// Simplifies the graph and expands the fused ops that `keep` rejects.
Graph simplified(const Graph& graph, const std::function<bool(const GraphNode&)>& keep,
                 const CostModel& costs, std::vector<double>& extra_scalars) {
  const Indexed<NodeId, bool> live = needed(graph);
  Indexed<NodeId, int> users(graph.nodes.size());
  for (const NodeId n : graph.nodes.ids())
    if (live[n])
      for (const Value input : graph[n].inputs) ++users[input.node];
  for (const Value output : graph.outputs) ++users[output.node];

  Graph empty;
  empty.inputs = graph.inputs;
  empty.donated = graph.donated;
  empty.scalars = graph.scalars;
  Builder builder(std::move(empty), costs);
  Indexed<NodeId, std::vector<Value>> made(graph.nodes.size());  // by output
  const auto made_of = [&](const std::vector<Value>& values) {
    std::vector<Value> result;
    for (const Value value : values)
      result.push_back(made[value.node][static_cast<std::size_t>(value.output)]);
    return result;
  };
  for (const NodeId i : graph.nodes.ids()) {
    if (!live[i]) continue;
    const GraphNode& node = graph[i];
    std::vector<Value> inputs = made_of(node.inputs);
    switch (info(node.op).op_class) {
      case OpClass::leaf:
        made[i] = {builder.leaf(node)};
        break;
      case OpClass::fused:
        if (keep(node)) {
          const Value first = builder.emit(node.op, node.attributes, std::move(inputs));
          for (std::size_t k = 0; k < node.outputs.size(); ++k)
            made[i].push_back({first.node, static_cast<std::int32_t>(k)});
        } else {
          made[i] = expand(builder, node.op, node.attributes, inputs);
        }
        break;
      default:
        // (A B)' = B' A': if the transpose is the product's only user, compute it directly.
        if (node.op == Op::transpose && builder.graph()[inputs[0]].op == Op::matmul &&
            users[node.inputs[0].node] == 1 &&
            swaps_last_two(std::get<AxesAttributes>(node.attributes).axes)) {
          const GraphNode product = builder.graph()[inputs[0]];
          const std::vector<Value>& factors = product.inputs;
          made[i] = {builder.emit(Op::matmul, product.attributes,
                                  {builder.emit(Op::transpose, node.attributes, {factors[1]}),
                                   builder.emit(Op::transpose, node.attributes, {factors[0]})})};
          break;
        }
        made[i] = {builder.emit(node.op, node.attributes, std::move(inputs))};
        break;
    }
  }
  extra_scalars = builder.extra_scalars;

  // Rewriting may have left nodes without users.
  Graph result = builder.take();
  result.outputs = made_of(graph.outputs);
  return without_dead(std::move(result));
}

}  // namespace

Graph simplify(const Graph& graph, const Capabilities& device, std::vector<double>& extra_scalars) {
  const auto keep = [&](const GraphNode& node) {
    const auto shape = [&](std::size_t i) { return graph.type(node.inputs[i]).shape; };
    return has_kernel(node, device.limits) &&
           !(node.op == Op::attention_backward && is_by_delta(shape(0), shape(3)));
  };
  return simplified(graph, keep, device.costs, extra_scalars);
}

Graph simplify_portably(const Graph& graph, std::vector<double>& extra_scalars) {
  // Keeps sums as reductions: sums of views suit some machines only.
  static constexpr CostModel no_machine{.max_summed_views = 0};
  return simplified(
      graph, [](const GraphNode&) { return true; }, no_machine, extra_scalars);
}

Graph without_dead(Graph full) {
  const Indexed<NodeId, bool> used = needed(full);
  Indexed<NodeId, NodeId> moved(full.nodes.size());
  const auto move = [&](Value& value) { value.node = moved[value.node]; };
  Indexed<NodeId, GraphNode> nodes;
  for (const NodeId n : full.nodes.ids()) {
    if (!used[n]) continue;
    for (Value& input : full.nodes[n].inputs) move(input);
    moved[n] = nodes.add(std::move(full.nodes[n]));
  }
  for (Value& output : full.outputs) move(output);
  full.nodes = std::move(nodes);
  return full;
}

}  // namespace fluxion::plan
