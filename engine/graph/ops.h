// The functions a user calls to build a graph. Each checks dtypes and shapes at the call and names
// itself, the shapes and the caller's file:line in the error.
//
// Dtypes are never promoted silently: operands must agree (DTypeError), and a C++ number takes the
// dtype of the tensor beside it, which must be able to hold it (`can_hold`, engine/graph/numbers.h;
// DTypeError). Binary functions broadcast as NumPy does: shapes align at the right, size 1
// stretches. Axes may be negative: -1 is the last. An operand that holds no tensor is an Error.
#pragma once

#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "engine/graph/tensor.h"

namespace fluxion {

// An operand of a function: a tensor or a number, with the place it was written at.
class Operand {
 public:
  Operand(const Tensor& tensor, Location where = Location::current())
      : value_(tensor), where_(where) {}
  Operand(double number, Location where = Location::current()) : value_(number), where_(where) {}

  // The tensor, or nullptr for a number. (The tensor may hold nothing: that is an error, no
  // number.)
  const Tensor* tensor() const { return std::get_if<Tensor>(&value_); }
  double number() const { return std::get<double>(value_); }
  const Location& where() const { return where_; }

 private:
  std::variant<Tensor, double> value_;
  Location where_;
};

// ---- making tensors
Tensor full(const Shape& shape, double value, DType dtype, const Device& device,
            Location where = Location::current());
Tensor zeros(const Shape& shape, DType dtype, const Device& device,
             Location where = Location::current());
Tensor zeros_like(const Tensor& x, Location where = Location::current());
Tensor ones_like(const Tensor& x, Location where = Location::current());
Tensor full_like(const Tensor& x, double value, Location where = Location::current());
// out[i0, .., ik, ..] = i_axis, dtype i32, u32 or floating.
Tensor iota(const Shape& shape, std::int64_t axis, DType dtype, const Device& device,
            Location where = Location::current());

// ---- elementwise, one operand
Tensor neg(const Tensor& x, Location where = Location::current());
Tensor exp(const Tensor& x, Location where = Location::current());
Tensor expm1(const Tensor& x, Location where = Location::current());
Tensor log(const Tensor& x, Location where = Location::current());
Tensor log1p(const Tensor& x, Location where = Location::current());
Tensor sin(const Tensor& x, Location where = Location::current());
Tensor cos(const Tensor& x, Location where = Location::current());
Tensor tanh(const Tensor& x, Location where = Location::current());
Tensor sigmoid(const Tensor& x, Location where = Location::current());  // 1 / (1 + e^-x)
Tensor erf(const Tensor& x, Location where = Location::current());
Tensor sqrt(const Tensor& x, Location where = Location::current());
Tensor rsqrt(const Tensor& x, Location where = Location::current());  // 1 / sqrt(x)
Tensor abs(const Tensor& x, Location where = Location::current());    // derivative 0 at 0
Tensor sign(const Tensor& x, Location where = Location::current());   // derivative 0
Tensor floor(const Tensor& x, Location where = Location::current());  // derivative 0
Tensor ceil(const Tensor& x, Location where = Location::current());   // derivative 0
Tensor round(const Tensor& x,
             Location where = Location::current());  // halves to even; derivative 0
Tensor reciprocal(const Tensor& x, Location where = Location::current());  // 1 / x
Tensor square(const Tensor& x, Location where = Location::current());      // x x
Tensor relu(const Tensor& x, Location where = Location::current());  // max(x, 0), derivative 0 at 0
Tensor silu(const Tensor& x, Location where = Location::current());  // x sigmoid(x)
Tensor softplus(const Tensor& x,
                Location where = Location::current());  // log(1 + e^x), accurate in both tails
Tensor gelu_tanh(
    const Tensor& x,
    Location where = Location::current());  // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
Tensor gelu_erf(const Tensor& x,
                Location where = Location::current());  // x/2 (1 + erf(x / sqrt 2))
// What becomes of numbers that `dtype` can't hold: engine/graph/numbers.h.
Tensor convert(const Tensor& x, DType dtype, Location where = Location::current());
Tensor stop_gradient(const Tensor& x,
                     Location where = Location::current());  // x, constant for every transform

// ---- elementwise, two operands
Tensor add(const Operand& a, const Operand& b);
Tensor sub(const Operand& a, const Operand& b);
Tensor mul(const Operand& a, const Operand& b);
Tensor div(const Operand& a, const Operand& b);  // floating dtypes
Tensor pow(const Operand& a,
           const Operand& b);  // a^b; d(a^0)/da = 0 and d(a^1)/da = 1 also at a = 0
Tensor atan2(const Operand& y, const Operand& x);
// sqrt(a^2 + b^2) without overflow or underflow on the way; infinity wins over NaN. Derivatives of
// every order are 0 at a = b = 0, as those of abs are at 0.
Tensor hypot(const Operand& a, const Operand& b);
Tensor maximum(
    const Operand& a,
    const Operand& b);  // NaN if either is; ties give each operand half of the derivative
Tensor minimum(const Operand& a, const Operand& b);
Tensor clip(const Tensor& x, const Operand& low,
            const Operand& high);                        // min(max(x, low), high); NaN stays
Tensor shift_right(const Operand& a, const Operand& b);  // u32
Tensor lt(const Operand& a, const Operand& b);
Tensor le(const Operand& a, const Operand& b);
Tensor gt(const Operand& a, const Operand& b);
Tensor ge(const Operand& a, const Operand& b);
Tensor eq(const Operand& a, const Operand& b);
Tensor ne(const Operand& a, const Operand& b);
Tensor where(const Tensor& condition, const Operand& a, const Operand& b);  // condition ? a : b

Tensor operator-(const Operand& x);
inline Tensor operator+(const Operand& a, const Operand& b) { return add(a, b); }
inline Tensor operator-(const Operand& a, const Operand& b) { return sub(a, b); }
inline Tensor operator*(const Operand& a, const Operand& b) { return mul(a, b); }
inline Tensor operator/(const Operand& a, const Operand& b) { return div(a, b); }

// ---- movement
Tensor reshape(const Tensor& x, const Shape& shape,
               Location where = Location::current());  // one size may be -1: the rest
Tensor transpose(const Tensor& x, const Dims& axes,
                 Location where = Location::current());  // output axis k is input axis axes[k]
Tensor swap_axes(const Tensor& x, std::int64_t a, std::int64_t b,
                 Location where = Location::current());
Tensor broadcast_to(const Tensor& x, const Shape& shape, Location where = Location::current());
Tensor slice(const Tensor& x, const Dims& start, const Dims& stop, const Dims& step,
             Location where = Location::current());
Tensor slice_axis(const Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t stop,
                  Location where = Location::current());
Tensor pad(const Tensor& x, const Dims& low, const Dims& high, double value = 0,
           Location where = Location::current());
Tensor concat(std::span<const Tensor> tensors, std::int64_t axis,
              Location where = Location::current());
inline Tensor concat(std::initializer_list<Tensor> tensors, std::int64_t axis,
                     Location where = Location::current()) {
  return concat(std::span<const Tensor>(tensors.begin(), tensors.size()), axis, where);
}
std::vector<Tensor> split(const Tensor& x, std::int64_t parts, std::int64_t axis,
                          Location where = Location::current());  // equal parts
Tensor flip(const Tensor& x, const Dims& axes, Location where = Location::current());
Tensor expand_dims(
    const Tensor& x, std::int64_t axis,
    Location where = Location::current());  // a new axis of size 1 at `axis` of the result

// ---- reductions: no axes listed means all
Tensor sum(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
           Location where = Location::current());
Tensor mean(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
            Location where = Location::current());  // floating dtypes
Tensor max(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
           Location where = Location::current());  // ties share the derivative equally
Tensor min(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
           Location where = Location::current());
// x minus its mean over `axes`, twice: the second mean takes out what the first one's rounding
// left, so equal elements give exactly 0 however large they are. Floating dtypes.
Tensor centred(const Tensor& x, const Dims& axes = {}, Location where = Location::current());
// sum (x - mean)^2 / (n - ddof); floating dtypes. Exactly 0 where all are equal.
Tensor var(const Tensor& x, const Dims& axes = {}, bool keepdims = false, std::int64_t ddof = 0,
           Location where = Location::current());
Tensor logsumexp(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
                 Location where = Location::current());
Tensor argmax(const Tensor& x, std::int64_t axis, bool keepdims = false,
              Location where = Location::current());  // i32, first maximum
Tensor cumsum(const Tensor& x, std::int64_t axis, Location where = Location::current());

// ---- contraction
// sum_k a[.., i, k] b[.., k, j]; ranks >= 2, batch axes broadcast. Pass a transposed view for a
// transposed operand: it costs no copy.
//
// Operands are bf16, f16 or f32 in any combination, or both f64. Each element is converted,
// exactly, to f32 (f64), and the products are added up there: storing an operand in 16 bits halves
// the memory that is read and changes nothing else. The result is the sum in f32 (f64) or, where
// `result` says so, that sum rounded once to bf16 or f16. (JAX: preferred_element_type = f32 is the
// default here; `result` = bf16 is JAX's own default.)
//
// Derivatives: a tangent or cotangent has the dtype of its tensor. Their products are summed in f32
// as well, and rounded once.
Tensor matmul(const Tensor& a, const Tensor& b, Location where = Location::current());
Tensor matmul(const Tensor& a, const Tensor& b, DType result, Location where = Location::current());

// ---- index
Tensor take(const Tensor& x, const Tensor& indices, std::int64_t axis,
            Location where = Location::current());
Tensor take_along_axis(const Tensor& x, const Tensor& indices, std::int64_t axis,
                       Location where = Location::current());
Tensor index_add(const Tensor& base, const Tensor& indices, const Tensor& updates,
                 std::int64_t axis, Location where = Location::current());
Tensor scatter_add(const Tensor& base, const Tensor& indices, const Tensor& updates,
                   std::int64_t axis, Location where = Location::current());
Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype = DType::f32,
               Location where = Location::current());  // new last axis

// ---- fused, defined by their expansions
Tensor softmax(const Tensor& x, std::int64_t axis = -1, Location where = Location::current());
Tensor log_softmax(const Tensor& x, std::int64_t axis = -1, Location where = Location::current());
// (x - mean) / sqrt(var + epsilon) over the last axis, population variance; times gamma plus beta
// where given.
Tensor layer_norm(const Tensor& x, double epsilon, const std::optional<Tensor>& gamma = {},
                  const std::optional<Tensor>& beta = {}, Location where = Location::current());
// x / sqrt(mean(x^2) + epsilon) over the last axis, times gamma where given.
Tensor rms_norm(const Tensor& x, double epsilon, const std::optional<Tensor>& gamma = {},
                Location where = Location::current());
// softmax(q k^T scale + mask) v over q [.., queries, d], k, v [.., keys, d]; mask is added and not
// differentiated; causal: key j is seen by query i if j <= i.
struct AttentionOptions {
  double scale = 0;  // 0: 1 / sqrt(d)
  bool causal = false;
  std::optional<Tensor> mask{};
};
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v,
                 const AttentionOptions& options = {}, Location where = Location::current());

// ---- random: a key is u32[2]; the same key gives the same numbers on every backend
// (Philox-4x32-10)
Tensor random_key(std::uint64_t seed, const Device& device);
Tensor fold_in(const Tensor& key, const Tensor& number,
               Location where = Location::current());  // a key for every u32 or i32 scalar
Tensor fold_in(const Tensor& key, std::uint32_t number, Location where = Location::current());
std::vector<Tensor> split_key(const Tensor& key, std::int64_t count,
                              Location where = Location::current());
Tensor random_bits(const Tensor& key, const Shape& shape,
                   Location where = Location::current());  // u32
Tensor uniform(const Tensor& key, const Shape& shape, DType dtype = DType::f32,
               Location where = Location::current());  // [0, 1)
Tensor normal(const Tensor& key, const Shape& shape, DType dtype = DType::f32,
              Location where = Location::current());  // N(0, 1)

}  // namespace fluxion
