// JVP rules: the tangent of every op's output from the tangents of its inputs.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numbers>

#include "autograd/linearize.h"
#include "autograd/rules.h"
#include "engine/graph/expansion.h"
#include "engine/graph/largest.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/single_precision.h"

namespace fluxion {

Tensor add_tangents(const Tensor& a, const Tensor& b) {
  if (!a) return b;
  if (!b) return a;
  if (a.dtype() != DType::bf16 && a.dtype() != DType::f16) return a + b;
  return convert(convert(a, DType::f32) + convert(b, DType::f32), a.dtype());
}

namespace {

// A literal other than 0: nothing can go wrong in a plain product with it.
bool is_plain_factor(const Tensor& factor) {
  if (factor.node()->op == Op::broadcast_to || factor.node()->op == Op::reshape) {
    const std::vector<Tensor> inputs = factor.node()->inputs();
    return !inputs.empty() && is_plain_factor(inputs[0]);
  }
  if (factor.node()->op != Op::constant) return false;
  const double value = std::get<ValueAttributes>(factor.node()->attributes).value;
  return value != 0 && fits_single(value);
}

}  // namespace

Tensor scaled(const Tensor& t, const Tensor& factor) {
  if (!t) return t;
  return is_plain_factor(factor) ? t * factor : strong_mul(t, factor);
}
Tensor divided(const Tensor& t, const Tensor& divisor) {
  if (!t) return t;
  return is_plain_factor(divisor) ? t / divisor : strong_div(t, divisor);
}

namespace {

using Tangents = std::vector<Tensor>;

Tensor negated(const Tensor& tangent) { return tangent ? -tangent : Tensor(); }
Tensor or_zeros(const Tensor& tangent, const Tensor& like) {
  return tangent ? tangent : zeros_like(like);
}

// The op is constant almost everywhere, or its output is not floating.
Tangents zero(const JvpCall& call) { return Tangents(call.node->outputs.size()); }

// The op is linear in all its operands jointly: apply it to the tangents.
Tangents linear(const JvpCall& call) {
  Tangents operands;
  for (std::size_t i = 0; i < call.inputs.size(); ++i)
    operands.push_back(or_zeros(call.tangents[i], call.inputs[i]));
  return {make_node(call.node->op, call.node->attributes, operands)};
}

Tangents convert(const JvpCall& call) {
  const DType dtype = call.get<DTypeAttributes>().dtype;
  return {is_floating(dtype) ? fluxion::convert(call.tangents[0], dtype) : Tensor()};
}

Tangents identity(const JvpCall& call) { return {call.tangents[0]}; }
Tangents neg(const JvpCall& call) { return {-call.tangents[0]}; }
Tangents exp(const JvpCall& call) { return {scaled(call.tangents[0], call.output())}; }
// Not expm1(x) + 1, which cancels in the left tail.
Tangents expm1(const JvpCall& call) {
  return {scaled(call.tangents[0], fluxion::exp(call.inputs[0]))};
}
Tangents log(const JvpCall& call) { return {divided(call.tangents[0], call.inputs[0])}; }
Tangents log1p(const JvpCall& call) { return {divided(call.tangents[0], call.inputs[0] + 1.0)}; }
Tangents sin(const JvpCall& call) {
  return {scaled(call.tangents[0], fluxion::cos(call.inputs[0]))};
}
Tangents cos(const JvpCall& call) {
  return {scaled(call.tangents[0], -fluxion::sin(call.inputs[0]))};
}
// From the operand: 1 - y^2 and y (1 - y) cancel where y rounds to 1.
Tangents tanh(const JvpCall& call) {
  return {scaled(call.tangents[0], 4.0 * fluxion::sigmoid_slope(2.0 * call.inputs[0]))};
}
Tangents sigmoid(const JvpCall& call) {
  return {scaled(call.tangents[0], fluxion::sigmoid_slope(call.inputs[0]))};
}
// sigmoid(-x) - sigmoid(x) = -tanh(x / 2)
Tangents sigmoid_slope(const JvpCall& call) {
  return {scaled(call.tangents[0], -(call.output() * fluxion::tanh(0.5 * call.inputs[0])))};
}
// A bell curve times `height`.
Tangents gaussian(const JvpCall& call, double height) {
  return {scaled(call.tangents[0], height * fluxion::exp(-square(call.inputs[0])))};
}
Tangents erf(const JvpCall& call) { return gaussian(call, 2 * std::numbers::inv_sqrtpi); }
Tangents erfc(const JvpCall& call) { return gaussian(call, -2 * std::numbers::inv_sqrtpi); }
Tangents sqrt(const JvpCall& call) { return {scaled(call.tangents[0], 0.5 / call.output())}; }
Tangents rsqrt(const JvpCall& call) {
  return {scaled(call.tangents[0], -0.5 * (call.output() / call.inputs[0]))};
}
Tangents abs(const JvpCall& call) {
  return {scaled(call.tangents[0], fluxion::sign(call.inputs[0]))};
}

Tangents add(const JvpCall& call) { return {add_tangents(call.tangents[0], call.tangents[1])}; }
Tangents sub(const JvpCall& call) {
  if (call.tangents[0] && call.tangents[1]) return {call.tangents[0] - call.tangents[1]};
  return {call.tangents[0] ? call.tangents[0] : negated(call.tangents[1])};
}
Tangents mul(const JvpCall& call) {
  return {add_tangents(scaled(call.tangents[0], call.inputs[1]),
                       scaled(call.tangents[1], call.inputs[0]))};
}
Tangents div(const JvpCall& call) {
  const Tensor& b = call.inputs[1];
  const Tensor second =
      call.tangents[1] ? scaled(call.tangents[1], -divided(call.output(), b)) : Tensor();
  return {add_tangents(divided(call.tangents[0], b), second)};
}
Tangents pow(const JvpCall& call) {
  const Tensor &a = call.inputs[0], &b = call.inputs[1];
  Tensor first, second;
  // b a^(b-1), where 0 a^-1 is 0 at a = 0 too. It is right as a function of b as well.
  if (call.tangents[0]) first = scaled(call.tangents[0], scaled(fluxion::pow(a, b - 1.0), b));
  // a^b log a, where log 0 counts as 0, also where a^b is infinite.
  if (call.tangents[1])
    second =
        scaled(call.tangents[1], scaled(fluxion::log(where(eq(a, 0.0), 1.0, a)), call.output()));
  return {add_tangents(first, second)};
}
// A length as a divisor. Infinity at the origin makes the derivatives of every order 0 there.
Tensor divisor(const Tensor& length) { return where(eq(length, 0.0), HUGE_VAL, length); }
// Divides twice by the length, because its square over- and underflows.
Tangents atan2(const JvpCall& call) {
  const Tensor &y = call.inputs[0], &x = call.inputs[1];
  const Tensor norm = divisor(fluxion::hypot(y, x));
  return {add_tangents(scaled(call.tangents[0], x / norm / norm),
                       scaled(call.tangents[1], -(y / norm / norm)))};
}
Tangents hypot(const JvpCall& call) {
  const Tensor norm = divisor(call.output());
  return {add_tangents(scaled(call.tangents[0], call.inputs[0] / norm),
                       scaled(call.tangents[1], call.inputs[1] / norm))};
}

// The derivative of maximum and minimum in one operand: half at a tie.
Tensor share(const Tensor& wins, const Tensor& ties, const Tensor& like) {
  return where(ties, 0.5, where(wins, ones_like(like), 0.0));
}
Tangents maximum(const JvpCall& call) {
  const Tensor &a = call.inputs[0], &b = call.inputs[1], ties = eq(a, b);
  return {add_tangents(scaled(call.tangents[0], share(gt(a, b), ties, a)),
                       scaled(call.tangents[1], share(lt(a, b), ties, a)))};
}
Tangents minimum(const JvpCall& call) {
  const Tensor &a = call.inputs[0], &b = call.inputs[1], ties = eq(a, b);
  return {add_tangents(scaled(call.tangents[0], share(lt(a, b), ties, a)),
                       scaled(call.tangents[1], share(gt(a, b), ties, a)))};
}
Tangents where(const JvpCall& call) {
  const Operand a = call.tangents[1] ? Operand(call.tangents[1]) : Operand(0.0);
  const Operand b = call.tangents[2] ? Operand(call.tangents[2]) : Operand(0.0);
  return {fluxion::where(call.inputs[0], a, b)};
}

Tangents pad(const JvpCall& call) {
  const auto& attributes = call.get<PadAttributes>();
  return {fluxion::pad(call.tangents[0], attributes.low, attributes.high, 0)};
}

// max and min over axes: tied elements share the derivative equally.
Tangents extremum(const JvpCall& call) {
  const Tensor& x = call.inputs[0];
  if (x.elements() == 0) return {Tensor()};  // the extremum of nothing is a constant
  const Tensor chosen = fluxion::convert(eq(x, call.output()), x.dtype());
  const Dims& axes = call.get<AxesAttributes>().axes;
  if (axes.empty()) return {call.tangents[0]};
  // Of a line with a NaN nothing is chosen, and each share is NaN.
  const Tensor share = chosen / sum(chosen, axes, true);
  return {sum(scaled(call.tangents[0], share), axes, true)};
}

// matmul and conv2d, linear in each operand: both products are added before they are rounded to the
// result's dtype.
Tangents contraction(const JvpCall& call, ContractAttributes dtypes,
                     const std::function<Tensor(const Tensor&, const Tensor&, DType)>& product) {
  const bool both = call.tangents[0] && call.tangents[1];
  const DType each = both ? dtypes.accumulate : dtypes.result;
  const Tensor sum =
      add_tangents(call.tangents[0] ? product(call.tangents[0], call.inputs[1], each) : Tensor(),
                   call.tangents[1] ? product(call.inputs[0], call.tangents[1], each) : Tensor());
  return {each == dtypes.result ? sum : fluxion::convert(sum, dtypes.result)};
}
Tangents matmul(const JvpCall& call) {
  return contraction(
      call, call.get<ContractAttributes>(),
      [](const Tensor& a, const Tensor& b, DType result) { return fluxion::matmul(a, b, result); });
}

// take and take_along_axis: linear in x, the indices carry no tangent.
Tangents gather(const JvpCall& call) {
  return {make_node(call.node->op, call.node->attributes, {call.tangents[0], call.inputs[1]})};
}
// index_add and scatter_add: linear in base and updates together.
Tangents scatter(const JvpCall& call) {
  return {make_node(call.node->op, call.node->attributes,
                    {or_zeros(call.tangents[0], call.inputs[0]), call.inputs[1],
                     or_zeros(call.tangents[2], call.inputs[2])})};
}

// The tangent of softmax's operand, minus what it is at the largest element (the mean over all that
// tie). To x and dx a constant may be added. With this one, no 1 - p is formed where p is nearly 1.
Tensor against_largest(const JvpCall& call) {
  const Dims axis{call.get<AxisAttributes>().axis};
  const Tensor y = call.output(), &dx = call.tangents[0];
  const Tensor largest = fluxion::convert(eq(y, max(y, axis, true)), y.dtype());
  return dx - mean_over(dx, largest, axis);
}
Tangents softmax(const JvpCall& call) {
  const Tensor y = call.output(), weighted = scaled(against_largest(call), y);
  return {weighted - scaled(sum(weighted, {call.get<AxisAttributes>().axis}, true), y)};
}
Tangents log_softmax(const JvpCall& call) {
  const Tensor dx = against_largest(call);
  return {dx -
          sum(scaled(dx, fluxion::exp(call.output())), {call.get<AxisAttributes>().axis}, true)};
}
// With y and s = 1/sqrt(var + eps): dy = s (dx - mean dx - y mean(y dx)), ds = -s^2 mean(y dx).
Tangents layer_norm(const JvpCall& call) {
  const Tensor &dx = call.tangents[0], y = call.output(0), s = call.output(1);
  const Tensor projection = mean(scaled(dx, y), {-1}, true);
  return {scaled(dx - mean(dx, {-1}, true) - scaled(projection, y), s), -scaled(projection, s * s)};
}
Tangents rms_norm(const JvpCall& call) {
  const Tensor &dx = call.tangents[0], y = call.output(0), s = call.output(1);
  const Tensor projection = mean(scaled(dx, y), {-1}, true);
  return {scaled(dx - scaled(projection, y), s), -scaled(projection, s * s)};
}

Tangents conv2d(const JvpCall& call) {
  auto attributes = call.get<ConvAttributes>();
  return contraction(call, attributes.contraction(),
                     [&](const Tensor& x, const Tensor& w, DType result) {
                       attributes.result = result;
                       return make_node(Op::conv2d, attributes, {x, w});
                     });
}

// The dual op computes the output again beside the tangent. The planner then drops the primal op:
// its outputs are the dual's first ones (pair_duals).
Tangents attention(const JvpCall& call) {
  std::vector<Tensor> operands(call.inputs.begin(), call.inputs.begin() + 3);
  for (std::size_t i = 0; i < 3; ++i)
    operands.push_back(or_zeros(call.tangents[i], call.inputs[i]));
  if (call.inputs.size() > 3) operands.push_back(call.inputs[3]);  // the mask is not differentiated
  const std::vector<Tensor> dual = make_nodes(Op::attention_dual, call.node->attributes, operands);
  return {dual[2], dual[3]};
}

// Higher orders of a fused op: the derivative of its expansion.
Tangents expanded(const JvpCall& call) {
  std::vector<Tensor> tangents = call.tangents;
  Leaves traced(call.inputs, tangents);
  return traced.push_forward(expansion(call.node->op, call.node->attributes, traced.tensors(),
                                       call.inputs[0].device().costs()));
}

bool moves(const JvpCall& call, std::size_t begin, std::size_t end) {
  return std::any_of(call.tangents.begin() + static_cast<std::ptrdiff_t>(begin),
                     call.tangents.begin() + static_cast<std::ptrdiff_t>(end),
                     [](const Tensor& tangent) { return static_cast<bool>(tangent); });
}

// The op on the tangents of operands [begin, end), in which it is linear; the others stay primal.
std::vector<Tensor> along(const JvpCall& call, std::size_t begin, std::size_t end) {
  std::vector<Tensor> operands = call.inputs;
  for (std::size_t i = begin; i < end; ++i)
    operands[i] = or_zeros(call.tangents[i], call.inputs[i]);
  return make_nodes(call.node->op, call.node->attributes, operands);
}

// (dy, dlse) is linear in (dq, dk, dv).
Tangents attention_dual(const JvpCall& call) {
  if (moves(call, 0, 3) || moves(call, 6, call.inputs.size())) return expanded(call);
  const std::vector<Tensor> dual = along(call, 3, 6);
  return {Tensor(), Tensor(), dual[2], dual[3]};
}

// Linear in u and the cotangent of lse.
Tangents attention_backward(const JvpCall& call) {
  if (moves(call, 0, 3) || moves(call, 5, call.inputs.size()) ||
      is_by_delta(call.inputs[0].shape(), call.inputs[3].shape()))
    return expanded(call);
  return along(call, 3, 5);
}

// `after` only delays its value, so the tangent need not wait.
Tangents after(const JvpCall& call) { return {call.tangents[0]}; }

// A function of this file, so that the table is constant-initialised under every sanitizer.
Tangents region(const JvpCall& call) { return region_jvp(call); }

constexpr auto jvp_rules = [] {
  std::array<JvpRule, op_count> table{};
  const auto set = [&](Op op, JvpRule rule) { table[static_cast<std::size_t>(op)] = rule; };
  for (const Op op : {Op::data, Op::parameter, Op::constant, Op::iota, Op::stop_gradient, Op::sign,
                      Op::floor, Op::shift_right, Op::lt, Op::le, Op::gt, Op::ge, Op::eq, Op::ne,
                      Op::argmax, Op::argsort, Op::random_bits})
    set(op, zero);
  for (const Op op : {Op::reshape, Op::transpose, Op::broadcast_to, Op::slice, Op::concat, Op::flip,
                      Op::windows, Op::sum, Op::cumsum})
    set(op, linear);
  set(Op::identity, identity), set(Op::neg, neg), set(Op::exp, exp), set(Op::expm1, expm1),
      set(Op::log, log), set(Op::log1p, log1p);
  set(Op::sin, sin), set(Op::cos, cos), set(Op::tanh, tanh), set(Op::sigmoid, sigmoid),
      set(Op::sigmoid_slope, sigmoid_slope);
  set(Op::erf, erf), set(Op::erfc, erfc), set(Op::sqrt, sqrt), set(Op::rsqrt, rsqrt);
  set(Op::abs, abs), set(Op::convert, convert), set(Op::add, add), set(Op::sub, sub),
      set(Op::mul, mul), set(Op::strong_mul, mul), set(Op::div, div), set(Op::strong_div, div),
      set(Op::pow, pow);
  set(Op::atan2, atan2), set(Op::hypot, hypot), set(Op::maximum, maximum),
      set(Op::minimum, minimum), set(Op::where, where), set(Op::pad, pad);
  set(Op::max, extremum), set(Op::min, extremum), set(Op::matmul, matmul);
  set(Op::take, gather), set(Op::take_along_axis, gather), set(Op::index_add, scatter),
      set(Op::scatter_add, scatter);
  set(Op::softmax, softmax), set(Op::log_softmax, log_softmax), set(Op::layer_norm, layer_norm),
      set(Op::rms_norm, rms_norm);
  set(Op::conv2d, conv2d), set(Op::attention, attention), set(Op::attention_dual, attention_dual),
      set(Op::attention_backward, attention_backward);
  set(Op::after, after), set(Op::region, region);
  return table;
}();

constexpr bool jvp_rules_complete() {
  for (const JvpRule rule : jvp_rules)
    if (!rule) return false;
  return true;
}
static_assert(jvp_rules_complete(), "an op of engine/graph/ops.def has no JVP rule");

}  // namespace

JvpRule jvp_rule(Op op) { return jvp_rules[static_cast<std::size_t>(op)]; }

}  // namespace fluxion
