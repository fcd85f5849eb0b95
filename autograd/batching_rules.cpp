// Batching rules: every op with the mapped axis in front. An operand that all examples share is
// broadcast along it: a view, no memory.
#include <array>

#include "autograd/batching.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"

namespace fluxion {

namespace {

using Outputs = std::vector<Tensor>;

// [size, ..]
Dims in_front(std::int64_t size, const Dims& sizes) {
  Dims result{size};
  result.insert(result.end(), sizes.begin(), sizes.end());
  return result;
}

Tensor stretched(const BatchCall& call, std::size_t i) {
  return call.batched[i] ? call.inputs[i] : repeated(call.inputs[i], call.size);
}

Outputs all_stretched(const BatchCall& call) {
  Outputs operands;
  for (std::size_t i = 0; i < call.inputs.size(); ++i) operands.push_back(stretched(call, i));
  return operands;
}

Outputs rebuilt(const BatchCall& call, Attributes attributes) {
  return make_nodes(call.node->op, std::move(attributes), all_stretched(call));
}

// Ops without axes, or with axes counted from the end: elementwise ops, norms over the last axis,
// attention.
Outputs leading(const BatchCall& call) { return rebuilt(call, call.node->attributes); }

// Ops that name axes from the front: the numbers grow by one.
Outputs along_axis(const BatchCall& call) {
  return rebuilt(call, AxisAttributes{call.get<AxisAttributes>().axis + 1});
}
Outputs along_axes(const BatchCall& call) {
  Dims axes = call.get<AxesAttributes>().axes;
  for (std::int64_t& axis : axes) ++axis;
  return rebuilt(call, AxesAttributes{axes});
}
Outputs argsort(const BatchCall& call) {
  const auto& a = call.get<SortAttributes>();
  return rebuilt(call, SortAttributes{a.axis + 1, a.descending});
}

Outputs reshape(const BatchCall& call) {
  return rebuilt(call, ShapeAttributes{in_front(call.size, call.get<ShapeAttributes>().shape)});
}
Outputs transpose(const BatchCall& call) {
  Dims axes = call.get<AxesAttributes>().axes;
  for (std::int64_t& axis : axes) ++axis;
  return rebuilt(call, AxesAttributes{in_front(0, axes)});
}
Outputs broadcast_to(const BatchCall& call) {
  // Axes added by broadcasting go between the mapped axis and the operand's own.
  const Dims& to = call.get<ShapeAttributes>().shape;
  const Tensor& x = call.inputs[0];
  Dims aligned = in_front(call.size, Dims(to.size() + 1 - static_cast<std::size_t>(x.rank()), 1));
  aligned.insert(aligned.end(), x.shape().begin() + 1, x.shape().end());
  return {
      fluxion::broadcast_to(fluxion::reshape(x, Shape(aligned)), Shape(in_front(call.size, to)))};
}
Outputs slice(const BatchCall& call) {
  const auto& a = call.get<SliceAttributes>();
  return rebuilt(call, SliceAttributes{in_front(0, a.start), in_front(call.size, a.stop),
                                       in_front(1, a.step)});
}
Outputs pad(const BatchCall& call) {
  const auto& a = call.get<PadAttributes>();
  return rebuilt(call, PadAttributes{in_front(0, a.low), in_front(0, a.high), a.value});
}

// [size, n, ..] as [size n, ..], and back.
Tensor folded(const Tensor& x) {
  Dims sizes(x.shape().begin() + 1, x.shape().end());
  sizes.front() *= x.shape()[0];
  return fluxion::reshape(x, Shape(sizes));
}
Tensor unfolded(const BatchCall& call, const Tensor& y) {
  return fluxion::reshape(y, with_leading_axis(call.size, call.node->outputs[0].shape));
}
Outputs windows(const BatchCall& call) {
  return {unfolded(call, make_node(Op::windows, call.node->attributes, {folded(call.inputs[0])}))};
}

// One large product instead of many small ones if the examples share an operand: the rows of all
// x_i w form one product, and so do the columns of a x_i if the x_i are vectors.
Outputs matmul(const BatchCall& call) {
  const Tensor &a = call.inputs[0], &b = call.inputs[1];
  const Shape& y = call.node->outputs[0].shape;
  const std::int64_t rows = y[y.rank() - 2], columns = y[y.rank() - 1], inner = a.size(-1);
  const bool single = Shape(Dims(y.begin(), y.end() - 2)).elements() == 1;
  const DType result = call.get<ContractAttributes>().result;
  if (single && !call.batched[1])
    return {unfolded(call, fluxion::matmul(fluxion::reshape(a, {call.size * rows, inner}),
                                           fluxion::reshape(b, {inner, columns}), result))};
  if (single && !call.batched[0] && columns == 1) {
    const Tensor vectors = fluxion::reshape(b, {call.size, inner}),
                 matrix = swap_axes(fluxion::reshape(a, {rows, inner}), 0, 1);
    return {unfolded(call, fluxion::matmul(vectors, matrix, result))};
  }
  return leading(call);
}

// Broadcasts indices [size, k..] to the shape of the elements they pick along `axis` of [size, ..]:
// [size, .., k.., ..].
Tensor spread_indices(const Tensor& indices, const Shape& picked, std::int64_t axis) {
  Dims sizes(static_cast<std::size_t>(picked.rank()), 1);
  sizes[0] = indices.shape()[0];
  for (std::int64_t k = 1; k < indices.rank(); ++k)
    sizes[static_cast<std::size_t>(axis + k - 1)] = indices.shape()[k];
  return fluxion::broadcast_to(fluxion::reshape(indices, Shape(sizes)), picked);
}

Outputs take(const BatchCall& call) {
  const std::int64_t axis = call.get<AxisAttributes>().axis;
  const Tensor &x = call.inputs[0], &indices = call.inputs[1];
  if (!call.batched[1]) return {fluxion::take(x, indices, axis + 1)};
  if (!call.batched[0]) {
    // The mapped axis of the indices comes out at `axis`.
    const Tensor taken = fluxion::take(x, indices, axis);
    Dims axes{axis};
    for (std::int64_t k = 0; k < taken.rank(); ++k)
      if (k != axis) axes.push_back(k);
    return {fluxion::transpose(taken, axes)};
  }
  // Each example takes from its own rows: flatten the axes of the indices into one, broadcast it.
  Shape picked = x.shape();
  const std::int64_t count =
      Shape(Dims(indices.shape().begin() + 1, indices.shape().end())).elements();
  picked[axis + 1] = count;
  const Tensor positions =
      spread_indices(fluxion::reshape(indices, {call.size, count}), picked, axis + 1);
  return {unfolded(call, fluxion::take_along_axis(x, positions, axis + 1))};
}
Outputs index_add(const BatchCall& call) {
  const std::int64_t axis = call.get<AxisAttributes>().axis + 1;
  const Tensor base = stretched(call, 0), updates = stretched(call, 2);
  if (!call.batched[1]) return {fluxion::index_add(base, call.inputs[1], updates, axis)};
  return {fluxion::scatter_add(base, spread_indices(call.inputs[1], updates.shape(), axis), updates,
                               axis)};
}

// Counters belong to a key: draw once per key.
Outputs random_bits(const BatchCall& call) {
  if (call.size == 0)
    return {
        zeros(with_leading_axis(0, call.node->outputs[0].shape), DType::u32, call.node->device)};
  const auto of = [&](std::size_t i, std::int64_t example) {
    if (!call.batched[i]) return call.inputs[i];
    const Tensor one = slice_axis(call.inputs[i], 0, example, example + 1);
    return fluxion::reshape(one, Shape(Dims(one.shape().begin() + 1, one.shape().end())));
  };
  Outputs draws;
  for (std::int64_t i = 0; i < call.size; ++i)
    draws.push_back(
        expand_dims(make_node(Op::random_bits, call.node->attributes, {of(0, i), of(1, i)}), 0));
  return {fluxion::concat(draws, 0)};
}

// Images of all examples form one batch. Weights per example become further output channels, or
// groups if the images differ too.
Outputs conv2d(const BatchCall& call) {
  auto attributes = call.get<ConvAttributes>();
  const Tensor &x = call.inputs[0], &w = call.inputs[1];
  const TensorType& y = call.node->outputs[0];
  if (call.size == 0) return {zeros(with_leading_axis(0, y.shape), y.dtype, call.node->device)};
  if (!call.batched[1]) return {unfolded(call, make_node(Op::conv2d, attributes, {folded(x), w}))};

  const std::int64_t n = call.size, groups = attributes.groups, out = y.shape[3] / groups;
  const std::int64_t height = w.size(1), width = w.size(2), in = w.size(3);
  const Dims& sizes = y.shape.dims();
  if (call.batched[0]) {
    const Tensor image = fluxion::reshape(fluxion::transpose(x, {1, 2, 3, 0, 4}),
                                          {x.size(1), x.size(2), x.size(3), n * x.size(4)});
    const Tensor weight = fluxion::reshape(fluxion::transpose(w, {1, 2, 3, 0, 4}),
                                           {height, width, in, n * groups * out});
    attributes.groups = n * groups;
    const Tensor wide = make_node(Op::conv2d, attributes, {image, weight});
    return {fluxion::transpose(
        fluxion::reshape(wide, {sizes[0], sizes[1], sizes[2], n, groups * out}), {3, 0, 1, 2, 4})};
  }
  // The groups of channels stay outermost, the examples follow: [.., groups, n, out].
  const Tensor split = fluxion::transpose(fluxion::reshape(w, {n, height, width, in, groups, out}),
                                          {1, 2, 3, 4, 0, 5});
  const Tensor wide = make_node(
      Op::conv2d, attributes, {x, fluxion::reshape(split, {height, width, in, groups * n * out})});
  const Tensor apart = fluxion::transpose(
      fluxion::reshape(wide, {sizes[0], sizes[1], sizes[2], groups, n, out}), {4, 0, 1, 2, 3, 5});
  return {unfolded(call, apart)};
}

// A function of this file, so that the table is constant-initialised under every sanitizer.
Outputs region(const BatchCall& call) { return batch_region(call); }

constexpr auto batch_rules = [] {
  std::array<BatchRule, op_count> table{};
  const auto set = [&](Op op, BatchRule rule) { table[static_cast<std::size_t>(op)] = rule; };
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule) \
  if (OpClass::op_class == OpClass::elementwise) set(Op::name, leading);
#include "engine/graph/ops.def"
#undef FLUXION_OP
  for (const Op op : {Op::layer_norm, Op::rms_norm, Op::attention, Op::attention_dual,
                      Op::attention_backward, Op::after})
    set(op, leading);
  for (const Op op : {Op::concat, Op::argmax, Op::cumsum, Op::take_along_axis, Op::scatter_add,
                      Op::softmax, Op::log_softmax})
    set(op, along_axis);
  for (const Op op : {Op::flip, Op::sum, Op::max, Op::min}) set(op, along_axes);
  set(Op::argsort, argsort), set(Op::reshape, reshape), set(Op::transpose, transpose),
      set(Op::broadcast_to, broadcast_to), set(Op::slice, slice);
  set(Op::pad, pad), set(Op::windows, windows), set(Op::matmul, matmul), set(Op::take, take),
      set(Op::index_add, index_add);
  set(Op::random_bits, random_bits), set(Op::conv2d, conv2d), set(Op::region, region);
  return table;
}();

constexpr bool batch_rules_complete() {
  bool all = true;
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule) \
  all = all &&                                                        \
        (OpClass::op_class == OpClass::leaf || batch_rules[static_cast<std::size_t>(Op::name)]);
#include "engine/graph/ops.def"
#undef FLUXION_OP
  return all;
}
static_assert(batch_rules_complete(), "an op of engine/graph/ops.def has no batching rule");

}  // namespace

BatchRule batch_rule(Op op) { return batch_rules[static_cast<std::size_t>(op)]; }

}  // namespace fluxion
