#include "engine/graph/ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "engine/graph/largest.h"
#include "engine/graph/numbers.h"
#include "engine/graph/op_names.h"
#include "engine/graph/shape_rules.h"

namespace fluxion {

namespace {

// x, checked, for functions that are one op. The other functions name themselves in their errors.
const Tensor& checked(Op op, const Tensor& x, const Location& where) {
  return require_tensor(x, to_string(op), "its operand", where);
}

Tensor unary(Op op, const Tensor& x, const Location& where) {
  return make_node(op, NoAttributes{}, {checked(op, x, where)}, where);
}

// Two operands as tensors. At least one must be a tensor; a number takes its dtype and device.
struct Pair {
  Tensor first, second;
};
Pair both_tensors(std::string_view function, const Operand& a, const Operand& b) {
  for (const Operand* operand : {&a, &b})
    if (operand->tensor())
      require_tensor(*operand->tensor(), function,
                     operand == &a ? "the first operand" : "the second operand", operand->where());
  const Tensor* like = a.tensor() ? a.tensor() : b.tensor();
  if (!like)
    throw Error(std::string(function) + ": both operands are numbers; one must be a tensor (" +
                to_string(a.where()) + ")");
  const auto tensor_of = [&](const Operand& operand) {
    return operand.tensor() ? *operand.tensor()
                            : make_constant(operand.number(), like->dtype(), like->device(),
                                            function, operand.where());
  };
  return {tensor_of(a), tensor_of(b)};
}

Tensor binary(Op op, const Operand& a, const Operand& b) {
  const auto [left, right] = both_tensors(to_string(op), a, b);
  const Location& where = a.where();
  const Shape shape = broadcast_shapes(op, left.type(), right.type(), where);
  return make_node(op, NoAttributes{},
                   {broadcast_to(left, shape, where), broadcast_to(right, shape, where)}, where);
}

Tensor reduction(Op op, const Tensor& x, const Dims& axes, bool keepdims, const Location& where) {
  const Dims normal = normal_axes(op, axes, checked(op, x, where).type(), where);
  Tensor result = make_node(op, AxesAttributes{normal}, {x}, where);
  if (keepdims) return result;
  Dims sizes;
  for (std::int64_t axis = 0; axis < x.rank(); ++axis)
    if (!std::binary_search(normal.begin(), normal.end(), axis)) sizes.push_back(x.shape()[axis]);
  return reshape(result, Shape(sizes), where);
}

// The number of elements in a mean of x over these axes.
double averaged_elements(std::string_view function, const Tensor& x, const Dims& axes,
                         const Location& where) {
  if (!is_floating(require_tensor(x, function, "x", where).dtype()))
    throw DTypeError(std::string(function) + ": wants a floating dtype, got " +
                     to_string(x.type()) + "; convert first (" + to_string(where) + ")");
  std::int64_t count = 1;
  for (const std::int64_t axis : normal_axes(Op::sum, axes, x.type(), where))
    count *= x.shape()[axis];
  return static_cast<double>(count);
}

// total / count. Multiplies by 1 / count if that is exact (a power of two); otherwise it would
// round twice.
Tensor divided(const Tensor& total, double count, const Location& where) {
  int exponent = 0;
  if (std::frexp(count, &exponent) == 0.5) return mul({total, where}, {1 / count, where});
  return div({total, where}, {count, where});
}

// Keeps the random ops of one key apart.
enum Domain : std::int64_t { draw = 0, fold = 1, splitting = 2 };

}  // namespace

// ---- making tensors

Tensor full(const Shape& shape, double value, DType dtype, const Device& device, Location where) {
  return broadcast_to(make_constant(value, dtype, device, "full", where), shape, where);
}
Tensor zeros(const Shape& shape, DType dtype, const Device& device, Location where) {
  return full(shape, 0, dtype, device, where);
}
Tensor zeros_like(const Tensor& x, Location where) {
  require_tensor(x, "zeros_like", "x", where);
  return full(x.shape(), 0, x.dtype(), x.device(), where);
}
Tensor ones_like(const Tensor& x, Location where) {
  require_tensor(x, "ones_like", "x", where);
  return full(x.shape(), 1, x.dtype(), x.device(), where);
}
Tensor full_like(const Tensor& x, double value, Location where) {
  require_tensor(x, "full_like", "x", where);
  return broadcast_to(make_constant(value, x.dtype(), x.device(), "full_like", where), x.shape(),
                      where);
}

Tensor iota(const Shape& shape, std::int64_t axis, DType dtype, const Device& device,
            Location where) {
  if (!is_representable(shape.dims(), dtype))
    throw ShapeError("iota: there is no tensor " + std::string(to_string(dtype)) +
                     to_string(shape) + ", which has a negative size or more than 2^50 bytes (" +
                     to_string(where) + ")");
  const TensorType type{shape, dtype};
  if (dtype == DType::i64 || dtype == DType::boolean || dtype == DType::u8)
    throw DTypeError("iota: wants i32, u32 or a floating dtype (" + to_string(where) + ")");
  axis = normal_axis(Op::iota, axis, type, where);
  if (!can_count(dtype, shape[axis]))
    throw ShapeError("iota: " + std::string(to_string(dtype)) + " can't count an axis of " +
                     std::to_string(shape[axis]) + " elements (" + to_string(where) + ")");
  return make_leaf(Op::iota, AxisAttributes{axis}, type, device);
}

// ---- elementwise, one operand

Tensor neg(const Tensor& x, Location where) { return unary(Op::neg, x, where); }
Tensor exp(const Tensor& x, Location where) { return unary(Op::exp, x, where); }
Tensor expm1(const Tensor& x, Location where) { return unary(Op::expm1, x, where); }
Tensor log(const Tensor& x, Location where) { return unary(Op::log, x, where); }
Tensor log1p(const Tensor& x, Location where) { return unary(Op::log1p, x, where); }
Tensor sin(const Tensor& x, Location where) { return unary(Op::sin, x, where); }
Tensor cos(const Tensor& x, Location where) { return unary(Op::cos, x, where); }
Tensor tanh(const Tensor& x, Location where) { return unary(Op::tanh, x, where); }
Tensor sigmoid(const Tensor& x, Location where) { return unary(Op::sigmoid, x, where); }
Tensor sigmoid_slope(const Tensor& x, Location where) { return unary(Op::sigmoid_slope, x, where); }
Tensor erf(const Tensor& x, Location where) { return unary(Op::erf, x, where); }
Tensor erfc(const Tensor& x, Location where) { return unary(Op::erfc, x, where); }
Tensor sqrt(const Tensor& x, Location where) { return unary(Op::sqrt, x, where); }
Tensor rsqrt(const Tensor& x, Location where) { return unary(Op::rsqrt, x, where); }
Tensor abs(const Tensor& x, Location where) { return unary(Op::abs, x, where); }
Tensor sign(const Tensor& x, Location where) { return unary(Op::sign, x, where); }
Tensor floor(const Tensor& x, Location where) { return unary(Op::floor, x, where); }
Tensor stop_gradient(const Tensor& x, Location where) { return unary(Op::stop_gradient, x, where); }

Tensor ceil(const Tensor& x, Location where) {
  require_tensor(x, "ceil", "x", where);
  return neg(floor(neg(x, where), where), where);
}
Tensor round(const Tensor& x, Location where) {
  require_tensor(x, "round", "x", where);
  // floor(x + 1/2) would round 0.49999997 up, since the sum is rounded; x - floor(x) is exact.
  const Tensor below = floor(x, where), rest = x - below;
  const Tensor is_odd = ne(below, 2.0 * floor(0.5 * below, where));
  const Tensor half_up =
      fluxion::where(is_odd, ge(rest, 0.5).to(x.dtype()), gt(rest, 0.5).to(x.dtype()));
  return below + half_up;
}
Tensor reciprocal(const Tensor& x, Location where) {
  require_tensor(x, "reciprocal", "x", where);
  return div(Operand(1.0, where), Operand(x, where));
}
Tensor square(const Tensor& x, Location where) {
  require_tensor(x, "square", "x", where);
  return mul(Operand(x, where), Operand(x, where));
}
Tensor relu(const Tensor& x, Location where) {
  require_tensor(x, "relu", "x", where);
  return fluxion::where(le(Operand(x, where), Operand(0.0, where)), Operand(0.0, where),
                        Operand(x, where));
}
Tensor silu(const Tensor& x, Location where) {
  require_tensor(x, "silu", "x", where);
  return mul(Operand(x, where), Operand(sigmoid(x, where), where));
}
Tensor softplus(const Tensor& x, Location where) {
  require_tensor(x, "softplus", "x", where);
  // max(x, 0) + log1p(e^-|x|) is accurate in both tails. Either side of `below` is softplus itself,
  // not only where it is chosen: so the derivatives of every order are right at 0 too.
  const Tensor below = le(Operand(x, where), Operand(0.0, where));
  return fluxion::where(below, Operand(0.0, where), Operand(x, where)) +
         log1p(exp(fluxion::where(below, Operand(x, where), Operand(neg(x, where), where)), where),
               where);
}
Tensor gelu_tanh(const Tensor& x, Location where) {
  require_tensor(x, "gelu_tanh", "x", where);
  // (1 + tanh(u)) / 2 = sigmoid(2 u) takes fewer operations and does not cancel for large negative
  // x.
  const double slope = std::sqrt(8 / std::numbers::pi);
  const Tensor u2 = x * (Operand(slope, where) + Operand(slope * 0.044715, where) * (x * x));
  return x * sigmoid(u2, where);
}
Tensor gelu_erf(const Tensor& x, Location where) {
  require_tensor(x, "gelu_erf", "x", where);
  // 1 + erf(u) would cancel for large negative x.
  return Operand(0.5, where) * x * erfc(Operand(-std::numbers::sqrt2 / 2, where) * x, where);
}

Tensor convert(const Tensor& x, DType dtype, Location where) {
  if (checked(Op::convert, x, where).dtype() == dtype) return x;
  return make_node(Op::convert, DTypeAttributes{dtype}, {x}, where);
}

// ---- elementwise, two operands

Tensor add(const Operand& a, const Operand& b) { return binary(Op::add, a, b); }
Tensor sub(const Operand& a, const Operand& b) { return binary(Op::sub, a, b); }
Tensor mul(const Operand& a, const Operand& b) { return binary(Op::mul, a, b); }
Tensor div(const Operand& a, const Operand& b) { return binary(Op::div, a, b); }
Tensor pow(const Operand& a, const Operand& b) { return binary(Op::pow, a, b); }
Tensor atan2(const Operand& y, const Operand& x) { return binary(Op::atan2, y, x); }
Tensor hypot(const Operand& a, const Operand& b) { return binary(Op::hypot, a, b); }
Tensor strong_mul(const Operand& a, const Operand& b) { return binary(Op::strong_mul, a, b); }
Tensor strong_div(const Operand& a, const Operand& b) { return binary(Op::strong_div, a, b); }
Tensor maximum(const Operand& a, const Operand& b) { return binary(Op::maximum, a, b); }
Tensor minimum(const Operand& a, const Operand& b) { return binary(Op::minimum, a, b); }
Tensor clip(const Tensor& x, const Operand& low, const Operand& high) {
  require_tensor(x, "clip", "x", low.where());
  const auto bound = [&](const Operand& operand, const char* name) {
    return operand.tensor()
               ? require_tensor(*operand.tensor(), "clip", name, operand.where())
               : make_constant(operand.number(), x.dtype(), x.device(), "clip", operand.where());
  };
  const Tensor least = bound(low, "low"), most = bound(high, "high");
  return minimum({maximum({x, low.where()}, {least, low.where()}), low.where()},
                 {most, high.where()});
}
Tensor shift_right(const Operand& a, const Operand& b) { return binary(Op::shift_right, a, b); }
Tensor lt(const Operand& a, const Operand& b) { return binary(Op::lt, a, b); }
Tensor le(const Operand& a, const Operand& b) { return binary(Op::le, a, b); }
Tensor gt(const Operand& a, const Operand& b) { return binary(Op::gt, a, b); }
Tensor ge(const Operand& a, const Operand& b) { return binary(Op::ge, a, b); }
Tensor eq(const Operand& a, const Operand& b) { return binary(Op::eq, a, b); }
Tensor ne(const Operand& a, const Operand& b) { return binary(Op::ne, a, b); }

Tensor where(const Tensor& condition, const Operand& a, const Operand& b) {
  const Location& place = a.where();
  require_tensor(condition, "where", "the condition", place);
  const auto [left, right] = both_tensors("where", a, b);
  const Shape branches = broadcast_shapes(Op::where, left.type(), right.type(), place);
  const Shape shape =
      broadcast_shapes(Op::where, condition.type(), {branches, left.dtype()}, place);
  return make_node(Op::where, NoAttributes{},
                   {broadcast_to(condition, shape, place), broadcast_to(left, shape, place),
                    broadcast_to(right, shape, place)},
                   place);
}

Tensor operator-(const Operand& x) {
  if (!x.tensor()) throw Error("neg: wants a tensor, not a number (" + to_string(x.where()) + ")");
  return neg(*x.tensor(), x.where());
}

// ---- movement

Tensor reshape(const Tensor& x, const Shape& shape, Location where) {
  if (checked(Op::reshape, x, where).shape() == shape) return x;
  Dims sizes = shape.dims();
  const auto free = std::find(sizes.begin(), sizes.end(), -1);
  if (free != sizes.end()) {
    Dims others = sizes;
    others.erase(std::remove(others.begin(), others.end(), -1), others.end());
    const bool one_free = others.size() + 1 == sizes.size();
    const std::int64_t known =
        one_free && is_representable(others, x.dtype()) ? Shape(others).elements() : 0;
    if (known == 0 || x.elements() % known != 0)
      throw ShapeError("reshape: can't infer the size -1 in " + to_string(shape) + " for " +
                       to_string(x.type()) + " (" + to_string(where) + ")");
    *free = x.elements() / known;
  }
  return make_node(Op::reshape, ShapeAttributes{sizes}, {x}, where);
}

Tensor transpose(const Tensor& x, const Dims& axes, Location where) {
  checked(Op::transpose, x, where);
  Dims normal;
  for (const std::int64_t axis : axes)
    normal.push_back(normal_axis(Op::transpose, axis, x.type(), where));
  return make_node(Op::transpose, AxesAttributes{normal}, {x}, where);
}

Tensor swap_axes(const Tensor& x, std::int64_t a, std::int64_t b, Location where) {
  Dims axes(static_cast<std::size_t>(require_tensor(x, "swap_axes", "x", where).rank()));
  std::iota(axes.begin(), axes.end(), 0);
  std::swap(axes[static_cast<std::size_t>(normal_axis(Op::transpose, a, x.type(), where))],
            axes[static_cast<std::size_t>(normal_axis(Op::transpose, b, x.type(), where))]);
  return transpose(x, axes, where);
}

Tensor broadcast_to(const Tensor& x, const Shape& shape, Location where) {
  if (checked(Op::broadcast_to, x, where).shape() == shape) return x;
  return make_node(Op::broadcast_to, ShapeAttributes{shape.dims()}, {x}, where);
}

Tensor slice(const Tensor& x, const Dims& start, const Dims& stop, const Dims& step,
             Location where) {
  return make_node(Op::slice, SliceAttributes{start, stop, step}, {x}, where);
}

Tensor slice_axis(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t stop,
                  Location where) {
  require_tensor(x, "slice_axis", "x", where);
  const auto normal = static_cast<std::size_t>(normal_axis(Op::slice, axis, x.type(), where));
  Dims starts(static_cast<std::size_t>(x.rank()), 0), stops = x.shape().dims(),
                                                      steps(static_cast<std::size_t>(x.rank()), 1);
  if (start == 0 && stop == stops[normal]) return x;
  starts[normal] = start;
  stops[normal] = stop;
  return slice(x, starts, stops, steps, where);
}

Tensor pad(const Tensor& x, const Dims& low, const Dims& high, double value, Location where) {
  checked(Op::pad, x, where);
  // The value as an element of x.
  const Tensor element = make_constant(value, x.dtype(), x.device(), "pad", where);
  const double held = std::get<ValueAttributes>(element.node()->attributes).value;
  return make_node(Op::pad, PadAttributes{low, high, held}, {x}, where);
}

Tensor concat(std::span<const Tensor> tensors, std::int64_t axis, Location where) {
  if (tensors.empty()) throw Error("concat: wants at least one tensor (" + to_string(where) + ")");
  for (std::size_t i = 0; i < tensors.size(); ++i)
    require_tensor(tensors[i], "concat", "tensor " + std::to_string(i), where);
  const std::int64_t normal = normal_axis(Op::concat, axis, tensors.front().type(), where);
  if (tensors.size() == 1) return tensors.front();
  return make_node(Op::concat, AxisAttributes{normal},
                   std::vector<Tensor>(tensors.begin(), tensors.end()), where);
}

std::vector<Tensor> split(const Tensor& x, std::int64_t parts, std::int64_t axis, Location where) {
  require_tensor(x, "split", "x", where);
  const std::int64_t normal = normal_axis(Op::slice, axis, x.type(), where);
  const std::int64_t size = x.shape()[normal];
  if (parts <= 0 || size % parts != 0)
    throw ShapeError("split: " + to_string(x.type()) + " can't be cut into " +
                     std::to_string(parts) + " equal parts along axis " + std::to_string(axis) +
                     " (" + to_string(where) + ")");
  std::vector<Tensor> result;
  for (std::int64_t i = 0; i < parts; ++i)
    result.push_back(slice_axis(x, normal, i * (size / parts), (i + 1) * (size / parts), where));
  return result;
}

Tensor flip(const Tensor& x, const Dims& axes, Location where) {
  checked(Op::flip, x, where);
  if (axes.empty()) return x;
  return make_node(Op::flip, AxesAttributes{normal_axes(Op::flip, axes, x.type(), where)}, {x},
                   where);
}

Tensor expand_dims(const Tensor& x, std::int64_t axis, Location where) {
  Dims sizes = require_tensor(x, "expand_dims", "x", where).shape().dims();
  const std::int64_t rank = x.rank() + 1;
  if (axis < -rank || axis >= rank)
    throw ShapeError("expand_dims: axis " + std::to_string(axis) + " is out of range for " +
                     to_string(x.type()) + " (" + to_string(where) + ")");
  sizes.insert(sizes.begin() + (axis < 0 ? axis + rank : axis), 1);
  return reshape(x, Shape(sizes), where);
}

// ---- reductions

Tensor sum(const Tensor& x, const Dims& axes, bool keepdims, Location where) {
  return reduction(Op::sum, x, axes, keepdims, where);
}
Tensor max(const Tensor& x, const Dims& axes, bool keepdims, Location where) {
  return reduction(Op::max, x, axes, keepdims, where);
}
Tensor min(const Tensor& x, const Dims& axes, bool keepdims, Location where) {
  return reduction(Op::min, x, axes, keepdims, where);
}

Tensor mean(const Tensor& x, const Dims& axes, bool keepdims, Location where) {
  const double count = averaged_elements("mean", x, axes, where);
  return divided(sum(x, axes, keepdims, where), count, where);
}

Tensor centred(const Tensor& x, const Dims& axes, Location where) {
  const double count = averaged_elements("centred", x, axes, where);
  const auto mean_of = [&](const Tensor& values) {
    return divided(sum(values, axes, true, where), count, where);
  };
  const Tensor once = sub({x, where}, {mean_of(x), where});
  // The mean of `once` is 0 up to rounding, and so is its derivative.
  return sub({once, where}, {stop_gradient(mean_of(once), where), where});
}

Tensor var(const Tensor& x, const Dims& axes, bool keepdims, std::int64_t ddof, Location where) {
  const double count = averaged_elements("var", x, axes, where);
  const Tensor squares = square(centred(x, axes, where), where);
  const double freedom = std::max(count - static_cast<double>(ddof), 0.0);
  return divided(sum(squares, axes, keepdims, where), freedom, where);
}

Tensor log_sum(const Tensor& shifted, const Tensor& largest, const Dims& axes) {
  if (shifted.elements() == 0) return log(sum(exp(shifted), axes, true));
  const Tensor chosen = convert(largest, shifted.dtype());
  return log1p(sum(exp(shifted) - chosen / sum(chosen, axes, true), axes, true));
}

Tensor mean_over(const Tensor& x, const Tensor& chosen, const Dims& axes) {
  return sum(strong_mul(x, chosen), axes, true) / sum(chosen, axes, true);
}

Tensor logsumexp(const Tensor& x, const Dims& axes, bool keepdims, Location where) {
  require_tensor(x, "logsumexp", "x", where);
  // The shift cancels in value and derivative. It is differentiated all the same: the largest term
  // then has no tangent, so that in the derivatives no 1 - p with p near 1 is formed. Where the
  // maximum is infinite, a shift of 0 avoids inf - inf.
  const Tensor top = max(x, axes, true, where);
  const Tensor shift =
      fluxion::where(lt(abs(top), std::numeric_limits<double>::infinity()), top, 0.0);
  // Over nothing but -inf, log_sum would depend on how 1 minus n times 1/n is rounded.
  const Tensor result =
      fluxion::where(eq(top, -std::numeric_limits<double>::infinity()), stop_gradient(top),
                     log_sum(x - shift, eq(x, top), axes) + shift);
  return keepdims ? result : reshape(result, sum(x, axes, false, where).shape(), where);
}

Tensor argmax(const Tensor& x, std::int64_t axis, bool keepdims, Location where) {
  const std::int64_t normal =
      normal_axis(Op::argmax, axis, checked(Op::argmax, x, where).type(), where);
  const Tensor result = make_node(Op::argmax, AxisAttributes{normal}, {x}, where);
  if (keepdims) return result;
  Dims sizes = result.shape().dims();
  sizes.erase(sizes.begin() + normal);
  return reshape(result, Shape(sizes), where);
}

Tensor cumsum(const Tensor& x, std::int64_t axis, Location where) {
  return make_node(
      Op::cumsum,
      AxisAttributes{normal_axis(Op::cumsum, axis, checked(Op::cumsum, x, where).type(), where)},
      {x}, where);
}

// ---- contraction

namespace {
Tensor product(const Tensor& a, const Tensor& b, std::optional<DType> result, Location where) {
  const TensorType &ta = require_tensor(a, "matmul", "a", where).type(),
                   &tb = require_tensor(b, "matmul", "b", where).type();
  ContractAttributes dtypes = contraction_of(ta.dtype, tb.dtype);
  if (result) dtypes.result = *result;
  if (ta.shape.rank() < 2 || tb.shape.rank() < 2)
    return make_node(Op::matmul, dtypes, {a, b}, where);  // throws
  const auto batch = [](const TensorType& t) {
    return TensorType{Shape(Dims(t.shape.begin(), t.shape.end() - 2)), t.dtype};
  };
  const Shape shared = broadcast_shapes(Op::matmul, batch(ta), batch(tb), where);
  const auto stretched = [&](const Tensor& x) {
    Dims sizes = shared.dims();
    sizes.push_back(x.size(-2));
    sizes.push_back(x.size(-1));
    return broadcast_to(x, Shape(sizes), where);
  };
  return make_node(Op::matmul, dtypes, {stretched(a), stretched(b)}, where);
}
}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, Location where) {
  return product(a, b, std::nullopt, where);
}
Tensor matmul(const Tensor& a, const Tensor& b, DType result, Location where) {
  return product(a, b, result, where);
}

// ---- index

Tensor take(const Tensor& x, const Tensor& indices, std::int64_t axis, Location where) {
  require_tensor(x, "take", "x", where);
  require_tensor(indices, "take", "indices", where);
  return make_node(
      Op::take,
      AxisAttributes{normal_axis(Op::take, axis, checked(Op::take, x, where).type(), where)},
      {x, indices}, where);
}
Tensor take_along_axis(const Tensor& x, const Tensor& indices, std::int64_t axis, Location where) {
  require_tensor(x, "take_along_axis", "x", where);
  require_tensor(indices, "take_along_axis", "indices", where);
  return make_node(
      Op::take_along_axis,
      AxisAttributes{normal_axis(Op::take_along_axis, axis,
                                 checked(Op::take_along_axis, x, where).type(), where)},
      {x, indices}, where);
}
Tensor index_add(const Tensor& base, const Tensor& indices, const Tensor& updates,
                 std::int64_t axis, Location where) {
  require_tensor(base, "index_add", "base", where);
  require_tensor(indices, "index_add", "indices", where);
  require_tensor(updates, "index_add", "updates", where);
  return make_node(Op::index_add,
                   AxisAttributes{normal_axis(Op::index_add, axis,
                                              checked(Op::index_add, base, where).type(), where)},
                   {base, indices, updates}, where);
}
Tensor scatter_add(const Tensor& base, const Tensor& indices, const Tensor& updates,
                   std::int64_t axis, Location where) {
  require_tensor(base, "scatter_add", "base", where);
  require_tensor(indices, "scatter_add", "indices", where);
  require_tensor(updates, "scatter_add", "updates", where);
  return make_node(Op::scatter_add,
                   AxisAttributes{normal_axis(Op::scatter_add, axis,
                                              checked(Op::scatter_add, base, where).type(), where)},
                   {base, indices, updates}, where);
}

Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype, Location where) {
  if (require_tensor(indices, "one_hot", "indices", where).dtype() != DType::i32)
    throw DTypeError("one_hot: indices must be i32, got " + to_string(indices.type()) + " (" +
                     to_string(where) + ")");
  if (classes < 0)
    throw ShapeError("one_hot: wants a number of classes, got " + std::to_string(classes) + " (" +
                     to_string(where) + ")");
  Dims sizes = indices.shape().dims();
  sizes.push_back(classes);
  const Tensor positions = iota(Shape(sizes), -1, DType::i32, indices.device(), where);
  return convert(eq(Operand(expand_dims(indices, -1, where), where), Operand(positions, where)),
                 dtype, where);
}

// ---- fused

Tensor softmax(const Tensor& x, std::int64_t axis, Location where) {
  return make_node(
      Op::softmax,
      AxisAttributes{normal_axis(Op::softmax, axis, checked(Op::softmax, x, where).type(), where)},
      {x}, where);
}
Tensor log_softmax(const Tensor& x, std::int64_t axis, Location where) {
  return make_node(Op::log_softmax,
                   AxisAttributes{normal_axis(Op::log_softmax, axis,
                                              checked(Op::log_softmax, x, where).type(), where)},
                   {x}, where);
}

namespace {
// The parameters of a normalisation may be absent, but not empty tensors.
void require_affine(const char* function, const std::optional<Tensor>& gamma,
                    const std::optional<Tensor>& beta, const Location& where) {
  if (gamma) require_tensor(*gamma, function, "gamma", where);
  if (beta) require_tensor(*beta, function, "beta", where);
}
Tensor affine(Tensor y, const std::optional<Tensor>& gamma, const std::optional<Tensor>& beta,
              const Location& where) {
  if (gamma) y = mul(Operand(y, where), Operand(*gamma, where));
  if (beta) y = add(Operand(y, where), Operand(*beta, where));
  return y;
}
}  // namespace

Tensor layer_norm(const Tensor& x, double epsilon, const std::optional<Tensor>& gamma,
                  const std::optional<Tensor>& beta, Location where) {
  require_affine("layer_norm", gamma, beta, where);
  return affine(make_node(Op::layer_norm, EpsilonAttributes{epsilon},
                          {checked(Op::layer_norm, x, where)}, where),
                gamma, beta, where);
}
Tensor rms_norm(const Tensor& x, double epsilon, const std::optional<Tensor>& gamma,
                Location where) {
  require_affine("rms_norm", gamma, {}, where);
  return affine(
      make_node(Op::rms_norm, EpsilonAttributes{epsilon}, {checked(Op::rms_norm, x, where)}, where),
      gamma, {}, where);
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                 Location where) {
  require_tensor(q, "attention", "q", where);
  require_tensor(k, "attention", "k", where);
  require_tensor(v, "attention", "v", where);
  if (options.mask) require_tensor(*options.mask, "attention", "the mask", where);
  for (const Tensor* operand : {&q, &k, &v})
    if (operand->rank() < 2)
      throw ShapeError("attention: wants q [.., queries, d] and k, v [.., keys, d], got " +
                       to_string(operand->type()) + " (" + to_string(where) + ")");
  // The batch axes of q, k, v and the mask broadcast, as those of matmul do.
  const auto batch_of = [](const Tensor& x) {
    return TensorType{Shape(Dims(x.shape().begin(), x.shape().end() - 2)), x.dtype()};
  };
  Shape batch = broadcast_shapes(Op::attention, batch_of(q), batch_of(k), where);
  batch = broadcast_shapes(Op::attention, {batch, q.dtype()}, batch_of(v), where);
  const auto stretched = [&](const Tensor& x, std::int64_t rows, std::int64_t columns) {
    Dims sizes = batch.dims();
    sizes.insert(sizes.end(), {rows, columns});
    return x.shape() == Shape(sizes) ? x : broadcast_to(x, Shape(sizes), where);
  };
  std::vector<Tensor> operands;
  for (const Tensor* operand : {&q, &k, &v})
    operands.push_back(stretched(*operand, operand->size(-2), operand->size(-1)));
  if (options.mask)
    operands.push_back(stretched(stop_gradient(*options.mask, where), q.size(-2), k.size(-2)));
  const double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(q.size(-1))));
  return make_node(Op::attention, AttentionAttributes{scale, options.causal}, operands, where);
}

// ---- random

Tensor random_key(std::uint64_t seed, const Device& device) {
  return Tensor::from<std::uint32_t>(
      std::vector<std::uint32_t>{static_cast<std::uint32_t>(seed),
                                 static_cast<std::uint32_t>(seed >> 32)},
      {2}, device);
}

Tensor fold_in(const Tensor& key, const Tensor& number, Location where) {
  require_tensor(key, "fold_in", "the key", where);
  require_tensor(number, "fold_in", "the number", where);
  if (!is_integer(number.dtype()))
    throw DTypeError("fold_in: the number must be an integer, got " + to_string(number.type()) +
                     "; convert first (" + to_string(where) + ")");
  return make_node(Op::random_bits, RandomAttributes{{2}, fold},
                   {key, convert(number, DType::u32, where)}, where);
}
Tensor fold_in(const Tensor& key, std::uint32_t number, Location where) {
  require_tensor(key, "fold_in", "the key", where);
  return fold_in(key, make_constant(number, DType::u32, key.device(), "fold_in", where), where);
}

std::vector<Tensor> split_key(const Tensor& key, std::int64_t count, Location where) {
  require_tensor(key, "split_key", "the key", where);
  const Tensor keys =
      make_node(Op::random_bits, RandomAttributes{{count, 2}, splitting},
                {key, make_constant(0, DType::u32, key.device(), "split_key", where)}, where);
  std::vector<Tensor> result;
  for (std::int64_t i = 0; i < count; ++i)
    result.push_back(reshape(slice_axis(keys, 0, i, i + 1, where), {2}, where));
  return result;
}

Tensor random_bits(const Tensor& key, const Shape& shape, Location where) {
  require_tensor(key, "random_bits", "the key", where);
  return make_node(Op::random_bits, RandomAttributes{shape.dims(), draw},
                   {key, make_constant(0, DType::u32, key.device(), "random_bits", where)}, where);
}

namespace {
// The upper 24 bits as multiples of 2^-24 (exact in f32), or all 32 as multiples of 2^-32 for f64.
Tensor unit_interval(const Tensor& bits, DType dtype, const Location& where) {
  if (dtype == DType::f64)
    return mul(Operand(convert(bits, dtype, where), where), Operand(0x1p-32, where));
  if (dtype != DType::f32)
    throw DTypeError("uniform and normal: want f32 or f64, got " + std::string(to_string(dtype)) +
                     " (" + to_string(where) + ")");
  return mul(
      Operand(convert(shift_right(Operand(bits, where), Operand(8.0, where)), dtype, where), where),
      Operand(0x1p-24, where));
}
}  // namespace

Tensor uniform(const Tensor& key, const Shape& shape, DType dtype, Location where) {
  require_tensor(key, "uniform", "the key", where);
  return unit_interval(random_bits(key, shape, where), dtype, where);
}

Tensor normal(const Tensor& key, const Shape& shape, DType dtype, Location where) {
  require_tensor(key, "normal", "the key", where);
  // Box and Muller (1958): sqrt(-2 log u) cos(2 pi w), with u in (0, 1].
  Dims sizes = shape.dims();
  sizes.insert(sizes.begin(), 2);
  const Tensor both = unit_interval(random_bits(key, Shape(sizes), where), dtype, where);
  const Tensor u = reshape(slice_axis(both, 0, 0, 1, where), shape, where),
               w = reshape(slice_axis(both, 0, 1, 2, where), shape, where);
  return sqrt(-2.0 * log(1.0 - u)) * cos(2 * std::numbers::pi * w);
}

}  // namespace fluxion
