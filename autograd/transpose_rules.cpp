// Transpose rules: for y = A x, the cotangent A' u of x from the cotangent u of y.
#include <algorithm>
#include <array>
#include <functional>

#include "autograd/rules.h"
#include "engine/graph/expansion.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"

namespace fluxion {

Tensor in_f32(const Tensor& u, const std::function<Tensor(const Tensor&)>& f) {
  const DType dtype = u.dtype();
  if (dtype != DType::bf16 && dtype != DType::f16) return f(u);
  return fluxion::convert(f(fluxion::convert(u, DType::f32)), dtype);
}

namespace {

using Cotangents = std::vector<Tensor>;

// u summed over the axes that broadcasting stretched, back to `shape`.
Tensor unbroadcast(const Tensor& u, const Shape& shape) {
  const std::int64_t added = u.rank() - shape.rank();
  Dims axes;
  for (std::int64_t axis = 0; axis < u.rank(); ++axis)
    if (axis < added || (shape[axis - added] == 1 && u.shape()[axis] != 1)) axes.push_back(axis);
  const auto summed = [&](const Tensor& wide) { return sum(wide, axes, true); };
  return reshape(axes.empty() ? u : in_f32(u, summed), shape);
}

Cotangents identity(const TransposeCall& call) { return {call.cotangents[0]}; }
Cotangents neg(const TransposeCall& call) { return {-call.cotangents[0]}; }
Cotangents convert(const TransposeCall& call) {
  const DType from = call.inputs[0].dtype(), to = call.cotangents[0].dtype();
  if (!is_floating(from) || !is_floating(to) || !is_floating(call.node->outputs[0].dtype))
    throw NotLinear("a conversion to or from integers is not linear");
  return {fluxion::convert(call.cotangents[0], call.inputs[0].dtype())};
}

Cotangents add(const TransposeCall& call) {
  const Tensor& u = call.cotangents[0];
  return {call.linear[0] ? u : Tensor(), call.linear[1] ? u : Tensor()};
}
Cotangents sub(const TransposeCall& call) {
  const Tensor& u = call.cotangents[0];
  return {call.linear[0] ? u : Tensor(), call.linear[1] ? -u : Tensor()};
}

// The op is linear in one operand at a time; a product of two linear operands is quadratic.
void require_one(const TransposeCall& call) {
  if (call.linear[0] && call.linear[1])
    throw NotLinear(std::string(to_string(call.node->op)) +
                    " of two values that both depend on the argument is not linear");
}

Cotangents mul(const TransposeCall& call) {
  require_one(call);
  const Tensor& u = call.cotangents[0];
  return call.linear[0] ? Cotangents{scaled(u, call.inputs[1]), Tensor()}
                        : Cotangents{Tensor(), scaled(u, call.inputs[0])};
}
Cotangents div(const TransposeCall& call) {
  if (call.linear[1]) throw NotLinear("div is not linear in its denominator");
  return {divided(call.cotangents[0], call.inputs[1]), Tensor()};
}
// Operands that choose: which of two values, or which elements.
void require_fixed(const TransposeCall& call, std::size_t operand, const char* what) {
  if (call.linear[operand])
    throw NotLinear(std::string(to_string(call.node->op)) + " is not linear: its " + what +
                    " depends on the argument");
}
Cotangents where(const TransposeCall& call) {
  require_fixed(call, 0, "condition");
  const Tensor &u = call.cotangents[0], &condition = call.inputs[0];
  return {Tensor(), call.linear[1] ? fluxion::where(condition, u, 0.0) : Tensor(),
          call.linear[2] ? fluxion::where(condition, 0.0, u) : Tensor()};
}

Cotangents reshape(const TransposeCall& call) {
  return {fluxion::reshape(call.cotangents[0], call.inputs[0].shape())};
}
Cotangents transpose(const TransposeCall& call) {
  const Dims& axes = call.get<AxesAttributes>().axes;
  Dims inverse(axes.size());
  for (std::size_t k = 0; k < axes.size(); ++k)
    inverse[static_cast<std::size_t>(axes[k])] = static_cast<std::int64_t>(k);
  return {fluxion::transpose(call.cotangents[0], inverse)};
}
Cotangents broadcast_to(const TransposeCall& call) {
  return {unbroadcast(call.cotangents[0], call.inputs[0].shape())};
}

Cotangents slice(const TransposeCall& call) {
  const auto& a = call.get<SliceAttributes>();
  const Shape& whole = call.inputs[0].shape();
  Tensor u = call.cotangents[0];
  for (std::int64_t axis = 0; axis < whole.rank(); ++axis) {
    const std::int64_t step = a.step[static_cast<std::size_t>(axis)], size = u.shape()[axis];
    if (step == 1 || size == 0) continue;
    // Spread the axis: each element becomes itself and step - 1 zeros.
    Dims spread = u.shape().dims(), high(spread.size() + 1, 0);
    u = expand_dims(u, axis + 1);
    high[static_cast<std::size_t>(axis) + 1] = step - 1;
    u = fluxion::pad(u, Dims(high.size(), 0), high);
    spread[static_cast<std::size_t>(axis)] = size * step;
    u = slice_axis(fluxion::reshape(u, Shape(spread)), axis, 0, (size - 1) * step + 1);
  }
  Dims high;
  for (std::int64_t axis = 0; axis < whole.rank(); ++axis)
    high.push_back(whole[axis] - a.start[static_cast<std::size_t>(axis)] - u.shape()[axis]);
  return {fluxion::pad(u, a.start, high)};
}

Cotangents pad(const TransposeCall& call) {
  const auto& a = call.get<PadAttributes>();
  const Shape& shape = call.inputs[0].shape();
  Dims stop = a.low;
  for (std::size_t axis = 0; axis < stop.size(); ++axis)
    stop[axis] += shape[static_cast<std::int64_t>(axis)];
  return {fluxion::slice(call.cotangents[0], a.low, stop, Dims(stop.size(), 1))};
}

Cotangents concat(const TransposeCall& call) {
  const std::int64_t axis = call.get<AxisAttributes>().axis;
  Cotangents result(call.inputs.size());
  std::int64_t start = 0;
  for (std::size_t i = 0; i < call.inputs.size(); ++i) {
    const std::int64_t stop = start + call.inputs[i].shape()[axis];
    if (call.linear[i]) result[i] = slice_axis(call.cotangents[0], axis, start, stop);
    start = stop;
  }
  return result;
}

Cotangents flip(const TransposeCall& call) {
  return {fluxion::flip(call.cotangents[0], call.get<AxesAttributes>().axes)};
}
Cotangents sum(const TransposeCall& call) {
  return {fluxion::broadcast_to(call.cotangents[0], call.inputs[0].shape())};
}
Cotangents cumsum(const TransposeCall& call) {
  const std::int64_t axis = call.get<AxisAttributes>().axis;
  return {fluxion::flip(fluxion::cumsum(fluxion::flip(call.cotangents[0], {axis}), axis), {axis})};
}

Cotangents matmul(const TransposeCall& call) {
  require_one(call);
  const Tensor &a = call.inputs[0], &b = call.inputs[1], &u = call.cotangents[0];
  if (call.linear[0]) return {fluxion::matmul(u, swap_axes(b, -1, -2), a.dtype()), Tensor()};
  return {Tensor(), fluxion::matmul(swap_axes(a, -1, -2), u, b.dtype())};
}

// y[o] = sum_p x[(stride o + dilation p - low) / spread] w[p], over whole indices. So for x, the
// cotangent is correlated with the flipped kernel, with stride and spread in each other's place.
Tensor conv2d_image(const TransposeCall& call) {
  const Tensor &x = call.inputs[0], &w = call.inputs[1], &u = call.cotangents[0];
  if (x.elements() == 0) return zeros_like(x);
  const auto& a = call.get<ConvAttributes>();
  ConvAttributes back{a.spread, a.dilation, a.stride,     a.low,
                      a.high,   a.groups,   a.accumulate, x.dtype()};
  for (std::size_t k = 0; k < 2; ++k) {
    const auto axis = static_cast<std::int64_t>(k) + 1;
    const std::int64_t reach = a.dilation[k] * (w.size(axis - 1) - 1);
    const std::int64_t moved = (x.size(axis) - 1) * back.stride[k] + 1,
                       seen = (u.size(axis) - 1) * back.spread[k] + 1;
    back.low[k] = reach - a.low[k];
    // Up to the last pixel of x, whether the kernel saw it or not.
    back.high[k] = moved + reach - seen - back.low[k];
  }
  // [.., in, groups x out] -> [.., out, groups x in].
  const std::int64_t kh = w.size(0), kw = w.size(1), in = w.size(2), out = w.size(3) / a.groups;
  const Tensor turned = kh * kw == 1 ? w : fluxion::flip(w, {0, 1});
  const Tensor swapped =
      fluxion::transpose(fluxion::reshape(turned, {kh, kw, in, a.groups, out}), {0, 1, 4, 3, 2});
  return make_node(Op::conv2d, back, {u, fluxion::reshape(swapped, {kh, kw, out, a.groups * in})});
}

// The cotangent of w: for each kernel element, the pixels it saw times the cotangent there, summed
// over all positions.
Tensor conv2d_weight(const TransposeCall& call) {
  const Tensor &x = call.inputs[0], &w = call.inputs[1], &u = call.cotangents[0];
  const auto& a = call.get<ConvAttributes>();
  const CostModel& costs = x.device().costs();
  const std::int64_t kh = w.size(0), kw = w.size(1), in = w.size(2), out = w.size(3) / a.groups,
                     rows = u.size(0) * u.size(1) * u.size(2);
  const Tensor seen = make_node(Op::windows, WindowAttributes{{kh, kw}, a.stride, a.dilation},
                                {spread_and_pad(x, a.spread, a.low, a.high, costs)});
  if (a.groups == 1 && out <= costs.max_turned_channels && out < kh * kw * in) {
    const Tensor turned = fluxion::matmul(swap_axes(fluxion::reshape(u, {rows, out}), 0, 1),
                                          fluxion::reshape(seen, {rows, kh * kw * in}), w.dtype());
    return fluxion::transpose(fluxion::reshape(turned, {out, kh, kw, in}), {1, 2, 3, 0});
  }
  if (a.groups == 1) {
    const Tensor columns = swap_axes(fluxion::reshape(seen, {rows, kh * kw * in}), 0, 1);
    return fluxion::reshape(fluxion::matmul(columns, fluxion::reshape(u, {rows, out}), w.dtype()),
                            w.shape());
  }
  if (in == 1 && out == 1 && costs.depthwise_as_views) {
    const Tensor products = fluxion::convert(seen, a.accumulate) *
                            fluxion::reshape(fluxion::convert(u, a.accumulate),
                                             {u.size(0), u.size(1), u.size(2), 1, 1, a.groups});
    return fluxion::convert(fluxion::reshape(fluxion::sum(products, {0, 1, 2}), w.shape()),
                            w.dtype());
  }
  const Tensor split =
      fluxion::reshape(seen, {u.size(0), u.size(1), u.size(2), kh, kw, a.groups, in});
  const Tensor columns = fluxion::reshape(fluxion::transpose(split, {5, 3, 4, 6, 0, 1, 2}),
                                          {a.groups, kh * kw * in, rows});
  const Tensor per_group =
      fluxion::transpose(fluxion::reshape(u, {rows, a.groups, out}), {1, 0, 2});
  return fluxion::reshape(
      fluxion::transpose(fluxion::matmul(columns, per_group, w.dtype()), {1, 0, 2}), w.shape());
}

Cotangents conv2d(const TransposeCall& call) {
  require_one(call);
  return call.linear[0] ? Cotangents{conv2d_image(call), Tensor()}
                        : Cotangents{Tensor(), conv2d_weight(call)};
}

// For each kernel position, adds its view's cotangent back to the pixels that it was taken from.
Tensor back_from_windows(const TransposeCall& call, const Tensor& u) {
  const auto& a = call.get<WindowAttributes>();
  const Shape &x = call.inputs[0].shape(), &shape = u.shape();
  Tensor total;
  for (std::int64_t p = 0; p < a.kernel[0]; ++p)
    for (std::int64_t q = 0; q < a.kernel[1]; ++q) {
      const Tensor view = slice_axis(slice_axis(u, 3, p, p + 1), 4, q, q + 1);
      const Dims low{p * a.dilation[0], q * a.dilation[1]};
      const auto rest = [&](std::int64_t k) {
        const auto i = static_cast<std::size_t>(k);
        return x[k + 1] - low[i] - (shape[k + 1] - 1) * a.stride[i] - 1;
      };
      const Tensor placed =
          spread_and_pad(fluxion::reshape(view, {shape[0], shape[1], shape[2], shape[5]}), a.stride,
                         low, {rest(0), rest(1)}, u.device().costs());
      total = add_tangents(total, placed);
    }
  return total;
}
Cotangents windows(const TransposeCall& call) {
  return {in_f32(call.cotangents[0], [&](const Tensor& u) { return back_from_windows(call, u); })};
}

Cotangents take(const TransposeCall& call) {
  require_fixed(call, 1, "choice of elements");
  // Flatten the axes of the indices into one and add rows along it.
  const std::int64_t axis = call.get<AxisAttributes>().axis;
  const Tensor &x = call.inputs[0], &indices = call.inputs[1];
  Shape shape = x.shape();
  shape[axis] = indices.elements();
  const auto added = [&](const Tensor& u) {
    return fluxion::index_add(zeros(x.shape(), u.dtype(), u.device()),
                              fluxion::reshape(indices, {indices.elements()}),
                              fluxion::reshape(u, shape), axis);
  };
  return {in_f32(call.cotangents[0], added), Tensor()};
}
Cotangents index_add(const TransposeCall& call) {
  require_fixed(call, 1, "choice of elements");
  const Tensor& u = call.cotangents[0];
  return {call.linear[0] ? u : Tensor(), Tensor(),
          call.linear[2] ? fluxion::take(u, call.inputs[1], call.get<AxisAttributes>().axis)
                         : Tensor()};
}
Cotangents take_along_axis(const TransposeCall& call) {
  require_fixed(call, 1, "choice of elements");
  const auto added = [&](const Tensor& u) {
    return fluxion::scatter_add(zeros(call.inputs[0].shape(), u.dtype(), u.device()),
                                call.inputs[1], u, call.get<AxisAttributes>().axis);
  };
  return {in_f32(call.cotangents[0], added), Tensor()};
}
Cotangents scatter_add(const TransposeCall& call) {
  require_fixed(call, 1, "choice of elements");
  const Tensor& u = call.cotangents[0];
  return {call.linear[0] ? u : Tensor(), Tensor(),
          call.linear[2]
              ? fluxion::take_along_axis(u, call.inputs[1], call.get<AxisAttributes>().axis)
              : Tensor()};
}

// The tangents (dy, dlse) of attention are linear in (dq, dk, dv).
Cotangents attention_dual(const TransposeCall& call) {
  for (std::size_t i : {0, 1, 2})
    if (call.linear[i]) throw NotLinear("attention_dual is linear in dq, dk and dv only");
  const std::vector<Tensor>& in = call.inputs;
  std::vector<Tensor> operands{in[0], in[1], in[2]};
  for (const std::size_t i : {2, 3}) {
    const Tensor& u = call.cotangents[i];
    const TensorType& type = call.node->outputs[i];
    operands.push_back(u ? u : zeros(type.shape, type.dtype, in[0].device()));
  }
  if (in.size() > 6) operands.push_back(in[6]);
  const std::vector<Tensor> back =
      make_nodes(Op::attention_backward, call.node->attributes, operands);
  Cotangents result(in.size());
  for (std::size_t i = 0; i < 3; ++i)
    if (call.linear[i + 3]) result[i + 3] = back[i];
  return result;
}

// Linear in the cotangents u and ulse. Let (a, b, c) be the cotangents of (dq, dk, dv) and (dy,
// dlse) the dual along them: those of (u, ulse) are (dy, dlse). By delta = sum(u y) - ulse, whose
// lse is taken to be that of q, k and mask, the cotangent of delta is -dlse and that of u is dy +
// dlse y.
Cotangents attention_backward(const TransposeCall& call) {
  const std::vector<Tensor>& in = call.inputs;
  const bool by_delta = is_by_delta(in[0].shape(), in[3].shape());
  const std::size_t u = by_delta ? 5 : 3, mask = by_delta ? 6 : 5;
  for (std::size_t i = 0; i < in.size(); ++i)
    if (call.linear[i] && i != u && i != 4)
      throw NotLinear("attention_backward is linear in the cotangents only");
  std::vector<Tensor> operands{in[0], in[1], in[2]};
  for (std::size_t i = 0; i < 3; ++i)
    operands.push_back(call.cotangents[i] ? call.cotangents[i] : zeros_like(in[i]));
  if (in.size() > mask) operands.push_back(in[mask]);
  const std::vector<Tensor> dual = make_nodes(Op::attention_dual, call.node->attributes, operands);
  Cotangents result(in.size());
  if (call.linear[4]) result[4] = by_delta ? -dual[3] : dual[3];
  if (call.linear[u])
    result[u] = by_delta ? dual[2] + scaled(expand_dims(dual[3], -1), dual[0]) : dual[2];
  return result;
}

Cotangents after(const TransposeCall& call) { return {call.cotangents[0], Tensor()}; }

constexpr auto transpose_rules = [] {
  std::array<TransposeRule, op_count> table{};
  const auto set = [&](Op op, TransposeRule rule) { table[static_cast<std::size_t>(op)] = rule; };
  set(Op::identity, identity), set(Op::neg, neg), set(Op::convert, convert), set(Op::add, add),
      set(Op::sub, sub), set(Op::mul, mul), set(Op::strong_mul, mul), set(Op::div, div),
      set(Op::strong_div, div);
  set(Op::where, where), set(Op::reshape, reshape), set(Op::transpose, transpose),
      set(Op::broadcast_to, broadcast_to), set(Op::slice, slice);
  set(Op::pad, pad), set(Op::concat, concat), set(Op::flip, flip), set(Op::sum, sum),
      set(Op::cumsum, cumsum), set(Op::matmul, matmul);
  set(Op::conv2d, conv2d), set(Op::windows, windows);
  set(Op::take, take), set(Op::index_add, index_add), set(Op::take_along_axis, take_along_axis),
      set(Op::scatter_add, scatter_add);
  set(Op::attention_dual, attention_dual), set(Op::attention_backward, attention_backward);
  set(Op::after, after), set(Op::region, region_transpose);
  return table;
}();

}  // namespace

TransposeRule transpose_rule(Op op) { return transpose_rules[static_cast<std::size_t>(op)]; }

}  // namespace fluxion
