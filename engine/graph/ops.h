// The functions a user calls to build a graph. Each checks dtypes and shapes at the call; its error
// names the function, the operands and the caller's file:line.
//
// Dtypes are never promoted silently: operands must agree (DTypeError), and a C++ number takes the
// dtype of the tensor beside it, which must be able to hold it (`can_hold`, engine/graph/numbers.h;
// DTypeError). Functions compute in f32, f64, i32 and u32, those marked "floating" in f32 and f64
// only; matmul also takes 16-bit floats. Convert anything else first. Integers wrap on overflow.
// Movement and `where` take every dtype but i64, and convert takes all.
//
// Binary functions broadcast as NumPy does: shapes align at the right, size 1 stretches
// (ShapeError). Axes may be negative: -1 is the last; one out of range is a ShapeError. An operand
// that holds no tensor is an Error.
#pragma once

#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

// An operand of a function: a tensor or a number, and the caller's place.
class Operand {
 public:
  Operand(const Tensor& tensor, Location where = Location::current())
      : value_(tensor), where_(where) {}
  Operand(double number, Location where = Location::current()) : value_(number), where_(where) {}

  // The tensor, or nullptr for a number. An empty tensor is not a number: functions refuse it.
  const Tensor* tensor() const { return std::get_if<Tensor>(&value_); }
  double number() const { return std::get<double>(value_); }
  const Location& where() const { return where_; }

 private:
  std::variant<Tensor, double> value_;
  Location where_;
};

// ---- making tensors; any dtype but i64

// `value` everywhere. Throws DTypeError if the dtype can't hold it.
Tensor full(const Shape& shape, double value, DType dtype, const Device& device,
            Location where = Location::current());
Tensor zeros(const Shape& shape, DType dtype, const Device& device,
             Location where = Location::current());
// With the shape, dtype and device of x.
Tensor zeros_like(const Tensor& x, Location where = Location::current());
Tensor ones_like(const Tensor& x, Location where = Location::current());
Tensor full_like(const Tensor& x, double value, Location where = Location::current());
// out[i0, .., ik, ..] = i_axis; i32, u32 or floating (16-bit too).
Tensor iota(const Shape& shape, std::int64_t axis, DType dtype, const Device& device,
            Location where = Location::current());

// ---- elementwise, one operand

Tensor neg(const Tensor& x, Location where = Location::current());

// Floating; NaN outside of the function's domain.
Tensor exp(const Tensor& x, Location where = Location::current());
Tensor expm1(const Tensor& x, Location where = Location::current());  // e^x - 1, accurate near 0
Tensor log(const Tensor& x, Location where = Location::current());
Tensor log1p(const Tensor& x, Location where = Location::current());  // log(1 + x), likewise
Tensor sin(const Tensor& x, Location where = Location::current());
Tensor cos(const Tensor& x, Location where = Location::current());
Tensor tanh(const Tensor& x, Location where = Location::current());
Tensor sigmoid(const Tensor& x, Location where = Location::current());  // 1 / (1 + e^-x)
// sigmoid(x) sigmoid(-x), the derivative of sigmoid, accurate in both tails; sigmoid_slope(2 x) is
// 1 / (2 cosh x)^2, a quarter of the derivative of tanh.
Tensor sigmoid_slope(const Tensor& x, Location where = Location::current());
Tensor erf(const Tensor& x, Location where = Location::current());
Tensor erfc(const Tensor& x, Location where = Location::current());  // 1 - erf(x), accurate
Tensor sqrt(const Tensor& x, Location where = Location::current());
Tensor rsqrt(const Tensor& x, Location where = Location::current());  // 1 / sqrt(x)

Tensor abs(const Tensor& x, Location where = Location::current());   // derivative 0 at 0
Tensor sign(const Tensor& x, Location where = Location::current());  // -1, 0 or 1; derivative 0

// Floating; derivative 0. round takes halves to the even neighbour.
Tensor floor(const Tensor& x, Location where = Location::current());
Tensor ceil(const Tensor& x, Location where = Location::current());
Tensor round(const Tensor& x, Location where = Location::current());

Tensor reciprocal(const Tensor& x, Location where = Location::current());  // 1 / x; floating
Tensor square(const Tensor& x, Location where = Location::current());      // x x
// max(x, 0), NaN where x is NaN; derivative 0 at 0.
Tensor relu(const Tensor& x, Location where = Location::current());

// Floating.
Tensor silu(const Tensor& x, Location where = Location::current());  // x sigmoid(x)
// log(1 + e^x), accurate in both tails, as are its derivatives.
Tensor softplus(const Tensor& x, Location where = Location::current());
// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
Tensor gelu_tanh(const Tensor& x, Location where = Location::current());
// x/2 erfc(-x / sqrt 2), which is x/2 (1 + erf(x / sqrt 2)).
Tensor gelu_erf(const Tensor& x, Location where = Location::current());

// x in another dtype. engine/graph/numbers.h says what becomes of numbers that it can't hold.
Tensor convert(const Tensor& x, DType dtype, Location where = Location::current());
// x, constant for every transform.
Tensor stop_gradient(const Tensor& x, Location where = Location::current());

// ---- elementwise, two operands: at least one is a tensor

// (x + 0 is x, also where x is -0.)
Tensor add(const Operand& a, const Operand& b);
Tensor sub(const Operand& a, const Operand& b);
Tensor mul(const Operand& a, const Operand& b);
Tensor div(const Operand& a, const Operand& b);  // floating
// a^b, floating. d(a^0)/da = 0 and d(a^1)/da = 1 also at a = 0. In b, derivatives at a = 0 are 0.
Tensor pow(const Operand& a, const Operand& b);
// The angle of the point (x, y), in [-pi, pi]; floating. Derivatives of every order are 0 at
// x = y = 0.
Tensor atan2(const Operand& y, const Operand& x);
// sqrt(a^2 + b^2) without overflow or underflow on the way; infinity wins over NaN. Derivatives of
// every order are 0 at a = b = 0, as those of abs are at 0.
Tensor hypot(const Operand& a, const Operand& b);
// a b and a / b in which 0 wins: 0 where a, or b or 1 / b, is 0, even if the other is infinite or
// NaN. Derivative rules multiply with them, so that a branch not taken has derivative 0 in both
// modes (docs/autodiff.md, "Zero times infinity"). Floating.
Tensor strong_mul(const Operand& a, const Operand& b);
Tensor strong_div(const Operand& a, const Operand& b);
// NaN if either is NaN. At a tie each operand gets half of the derivative.
Tensor maximum(const Operand& a, const Operand& b);
Tensor minimum(const Operand& a, const Operand& b);
// minimum(maximum(x, low), high): NaN stays NaN, and half of the derivative passes at a bound.
Tensor clip(const Tensor& x, const Operand& low, const Operand& high);
Tensor shift_right(const Operand& a, const Operand& b);  // a >> (b & 31); u32

// Comparisons give bool and also take bool. With NaN, ne is true and the others are false.
Tensor lt(const Operand& a, const Operand& b);
Tensor le(const Operand& a, const Operand& b);
Tensor gt(const Operand& a, const Operand& b);
Tensor ge(const Operand& a, const Operand& b);
Tensor eq(const Operand& a, const Operand& b);
Tensor ne(const Operand& a, const Operand& b);
// condition ? a : b, element by element; the condition is bool. All three broadcast.
Tensor where(const Tensor& condition, const Operand& a, const Operand& b);

Tensor operator-(const Operand& x);
inline Tensor operator+(const Operand& a, const Operand& b) { return add(a, b); }
inline Tensor operator-(const Operand& a, const Operand& b) { return sub(a, b); }
inline Tensor operator*(const Operand& a, const Operand& b) { return mul(a, b); }
inline Tensor operator/(const Operand& a, const Operand& b) { return div(a, b); }

// ---- movement. Throws ShapeError where the arguments do not fit the shape of x.

// The same elements in row-major order. One size may be -1: it is inferred from the others.
Tensor reshape(const Tensor& x, const Shape& shape, Location where = Location::current());
// Output axis k is input axis axes[k].
Tensor transpose(const Tensor& x, const Dims& axes, Location where = Location::current());
Tensor swap_axes(const Tensor& x, std::int64_t a, std::int64_t b,
                 Location where = Location::current());
Tensor broadcast_to(const Tensor& x, const Shape& shape, Location where = Location::current());
// Per axis the elements start, start + step, .. below stop; 0 <= start <= stop <= size, step >= 1.
Tensor slice(const Tensor& x, const Dims& start, const Dims& stop, const Dims& step,
             Location where = Location::current());
// Elements [start, stop) of one axis.
Tensor slice_axis(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t stop,
                  Location where = Location::current());
// low[k] elements of `value` before axis k and high[k] after it, none negative. Throws DTypeError
// if the dtype of x can't hold the value.
Tensor pad(const Tensor& x, const Dims& low, const Dims& high, double value = 0,
           Location where = Location::current());
// The tensors one after the other along `axis`; their other axes agree.
Tensor concat(std::span<const Tensor> tensors, std::int64_t axis,
              Location where = Location::current());
inline Tensor concat(std::initializer_list<Tensor> tensors, std::int64_t axis,
                     Location where = Location::current()) {
  return concat(std::span<const Tensor>(tensors.begin(), tensors.size()), axis, where);
}
// x cut into equal parts along `axis`.
std::vector<Tensor> split(const Tensor& x, std::int64_t parts, std::int64_t axis,
                          Location where = Location::current());
// Each of the axes reversed.
Tensor flip(const Tensor& x, const Dims& axes, Location where = Location::current());
// A new axis of size 1 at `axis` of the result.
Tensor expand_dims(const Tensor& x, std::int64_t axis, Location where = Location::current());

// ---- reductions over `axes`, all if none is listed. With `keepdims` these keep size 1, else they
// are dropped.

Tensor sum(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
           Location where = Location::current());
// sum / n; floating.
Tensor mean(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
            Location where = Location::current());
// NaN if an element is; tied elements share the derivative equally. Over no elements, max is -inf
// and min inf, or the integer dtype's least and greatest number.
Tensor max(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
           Location where = Location::current());
Tensor min(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
           Location where = Location::current());
// x minus its mean over `axes`, in the shape of x; floating. It is done twice: the second time
// removes the rounding error of the first mean, so equal elements give exactly 0 however large they
// are.
Tensor centred(const Tensor& x, const Dims& axes = {}, Location where = Location::current());
// sum (x - mean)^2 / (n - ddof); floating. Exactly 0 where all elements are equal.
Tensor var(const Tensor& x, const Dims& axes = {}, bool keepdims = false, std::int64_t ddof = 0,
           Location where = Location::current());
// log sum e^x without overflow; floating.
Tensor logsumexp(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
                 Location where = Location::current());
// The i32 position of the first maximum, or of the first NaN. An empty axis is a ShapeError.
Tensor argmax(const Tensor& x, std::int64_t axis, bool keepdims = false,
              Location where = Location::current());
// Inclusive sums along `axis`, in the shape of x.
Tensor cumsum(const Tensor& x, std::int64_t axis, Location where = Location::current());

// ---- contraction

// sum_k a[.., i, k] b[.., k, j]; both have at least two axes, and batch axes broadcast. Pass a
// transposed view for a transposed operand: it costs no copy.
//
// Operands are bf16, f16 or f32 in any combination, or both f64. Each element is converted,
// exactly, to f32 (f64), and the products are added up there: storing an operand in 16 bits halves
// the memory that is read and changes nothing else. The result is the sum in f32 (f64) or, if
// `result` says so, that sum rounded once to bf16 or f16. (JAX: preferred_element_type = f32 is the
// default here; `result` = bf16 is JAX's own default.)
//
// Derivatives: a tangent or cotangent has the dtype of its tensor. Their products are summed in f32
// (f64) too, and rounded once.
Tensor matmul(const Tensor& a, const Tensor& b, Location where = Location::current());
Tensor matmul(const Tensor& a, const Tensor& b, DType result, Location where = Location::current());

// ---- index. Indices are i32 and clamped to [0, size of the axis); they carry no derivative.

// x[.., indices[j..], ..]: `axis` of x is replaced by the axes of `indices`.
Tensor take(const Tensor& x, const Tensor& indices, std::int64_t axis,
            Location where = Location::current());
// x[.., indices[.., j, ..], ..]; `indices` has the shape of x but for the size of `axis`, and gives
// the shape of the result.
Tensor take_along_axis(const Tensor& x, const Tensor& indices, std::int64_t axis,
                       Location where = Location::current());
// base with updates[.., j, ..] added at position indices[j] of `axis`, for every j. `indices` is
// [n]; `updates` has the shape of base with n as the size of `axis`.
Tensor index_add(const Tensor& base, const Tensor& indices, const Tensor& updates,
                 std::int64_t axis, Location where = Location::current());
// base with updates[.., j, ..] added at position indices[.., j, ..] of `axis`; `updates` and
// `indices` have one shape, that of base but for the size of `axis`.
Tensor scatter_add(const Tensor& base, const Tensor& indices, const Tensor& updates,
                   std::int64_t axis, Location where = Location::current());
// 1 where the index is the position along a new last axis of size `classes`, else 0.
Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype = DType::f32,
               Location where = Location::current());

// ---- fused ops, defined by their expansions (engine/graph/expansion.h); floating

// e^x_i / sum_j e^x_j along `axis`, and its logarithm, in the shape of x. A line that is all -inf,
// or holds inf or NaN, becomes NaN (attention gives 0 where it sees nothing). Throws DTypeError if
// x is not floating, ShapeError if it has no such axis.
Tensor softmax(const Tensor& x, std::int64_t axis = -1, Location where = Location::current());
Tensor log_softmax(const Tensor& x, std::int64_t axis = -1, Location where = Location::current());
// (x - mean) / sqrt(var + epsilon) over the last axis, with the population variance; then times
// gamma plus beta where given, which broadcast.
Tensor layer_norm(const Tensor& x, double epsilon, const std::optional<Tensor>& gamma = {},
                  const std::optional<Tensor>& beta = {}, Location where = Location::current());
// x / sqrt(mean(x^2) + epsilon) over the last axis; then times gamma where given.
Tensor rms_norm(const Tensor& x, double epsilon, const std::optional<Tensor>& gamma = {},
                Location where = Location::current());

struct AttentionOptions {
  std::optional<double> scale{};  // empty: 1 / sqrt(d)
  bool causal = false;            // query i sees key j only if j <= i
  // [.., queries, keys], added to the scores; not differentiated.
  std::optional<Tensor> mask{};
};
// softmax(q k^T scale + mask) v over q [.., queries, d], k and v [.., keys, d] ->
// [.., queries, d]. Batch axes broadcast. A query that sees no key - each is masked with -inf, or
// there is none - gets 0, with derivative 0.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v,
                 const AttentionOptions& options = {}, Location where = Location::current());

// ---- random: Philox-4x32-10 with a key u32[2]. The same key gives the same bits, keys and uniform
// numbers on every backend, and the same normal ones up to rounding, so use each key once:
// split_key and fold_in make new ones.

Tensor random_key(std::uint64_t seed, const Device& device);
// A new key for each number, an integer scalar that is converted to u32. Throws DTypeError for
// another dtype: times below 1 would all be 0.
Tensor fold_in(const Tensor& key, const Tensor& number, Location where = Location::current());
Tensor fold_in(const Tensor& key, std::uint32_t number, Location where = Location::current());
// `count` new keys.
std::vector<Tensor> split_key(const Tensor& key, std::int64_t count,
                              Location where = Location::current());
// Independent uniform bits, u32.
Tensor random_bits(const Tensor& key, const Shape& shape, Location where = Location::current());
// Uniform in [0, 1): multiples of 2^-24 in f32, of 2^-32 in f64.
Tensor uniform(const Tensor& key, const Shape& shape, DType dtype = DType::f32,
               Location where = Location::current());
// Standard normal, N(0, 1); f32 or f64.
Tensor normal(const Tensor& key, const Shape& shape, DType dtype = DType::f32,
              Location where = Location::current());

}  // namespace fluxion
