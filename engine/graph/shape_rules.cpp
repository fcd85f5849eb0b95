#include "engine/graph/shape_rules.h"

#include <algorithm>
#include <array>
#include <limits>

#include "engine/graph/expansion.h"
#include "engine/graph/numbers.h"
#include "engine/graph/op_names.h"
#include "engine/graph/region.h"
#include "engine/number_text.h"

namespace fluxion {

namespace {

struct Call {
  Op op;
  const Attributes& attributes;
  std::span<const TensorType> inputs;
  const Location& where;

  template <class T>
  const T& get() const {
    return std::get<T>(attributes);
  }

  std::string context() const {
    std::string text;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      text += (i ? ", " : " of ") + to_string(inputs[i]);
    const std::string attribute_text = to_string(attributes);
    if (!attribute_text.empty()) text += " with " + attribute_text;
    return text + " (" + to_string(where) + ")";
  }
  [[noreturn]] void fail_shape(const std::string& what) const {
    throw ShapeError(std::string(to_string(op)) + ": " + what + context());
  }
  [[noreturn]] void fail_dtype(const std::string& what) const {
    throw DTypeError(std::string(to_string(op)) + ": " + what + context());
  }
  // Throws ShapeError in the op's name unless a tensor of this type can exist.
  void require_representable(const Shape& shape, DType dtype) const {
    if (is_representable(shape.dims(), dtype)) return;
    fail_shape("the result " + std::string(to_string(dtype)) + to_string(shape) +
               " has a negative size or more than 2^50 bytes, in a call");
  }
  // The sum of two sizes.
  std::int64_t sum(std::int64_t a, std::int64_t b) const {
    std::int64_t result = 0;
    if (__builtin_add_overflow(a, b, &result)) fail_shape("an absurdly long axis, in a call");
    return result;
  }
  void require_shape(bool holds, const char* what) const {
    if (!holds) fail_shape(std::string(what) + ", in a call");
  }
  void require_dtype(bool holds, const char* what) const {
    if (!holds) fail_dtype(std::string(what) + ", in a call");
  }
  // Throws DTypeError unless the first operand's dtype holds a number of the attributes, which
  // becomes an element of it.
  void require_number(double number) const {
    if (!can_hold(inputs[0].dtype, number))
      fail_dtype(std::string(to_string(inputs[0].dtype)) + " can't hold the number " +
                 number_text(number) + ", in a call");
  }
};

using Types = std::vector<TensorType>;

bool computes(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f64 || dtype == DType::i32 || dtype == DType::u32;
}
bool computes_floating(DType dtype) { return dtype == DType::f32 || dtype == DType::f64; }

void require_alike(const Call& call) {
  for (const TensorType& input : call.inputs) {
    call.require_dtype(input.dtype == call.inputs[0].dtype,
                       "the operands' dtypes differ; convert one");
    call.require_shape(input.shape == call.inputs[0].shape, "the operands' shapes differ");
  }
}

Types stated(const Call& call) { call.fail_shape("a leaf has no shape rule"); }

Types same(const Call& call) { return {call.inputs[0]}; }

Types numeric(const Call& call) {
  call.require_dtype(computes(call.inputs[0].dtype), "wants f32, f64, i32 or u32; convert first");
  require_alike(call);
  return {call.inputs[0]};
}

Types floating(const Call& call) {
  call.require_dtype(computes_floating(call.inputs[0].dtype), "wants f32 or f64; convert first");
  require_alike(call);
  return {call.inputs[0]};
}

Types unsigned_integer(const Call& call) {
  call.require_dtype(call.inputs[0].dtype == DType::u32, "wants u32");
  require_alike(call);
  return {call.inputs[0]};
}

Types comparison(const Call& call) {
  call.require_dtype(computes(call.inputs[0].dtype) || call.inputs[0].dtype == DType::boolean,
                     "wants f32, f64, i32, u32 or bool; convert first");
  require_alike(call);
  return {{call.inputs[0].shape, DType::boolean}};
}

Types where(const Call& call) {
  call.require_dtype(call.inputs[0].dtype == DType::boolean, "the condition must be bool");
  call.require_dtype(call.inputs[1].dtype == call.inputs[2].dtype,
                     "the two branches' dtypes differ; convert one");
  call.require_dtype(call.inputs[1].dtype != DType::i64,
                     "i64 exists at the boundary only; convert to i32");
  call.require_shape(
      call.inputs[0].shape == call.inputs[1].shape && call.inputs[1].shape == call.inputs[2].shape,
      "the operands' shapes differ");
  return {call.inputs[1]};
}

Types convert(const Call& call) {
  const DType dtype = call.get<DTypeAttributes>().dtype;
  call.require_representable(call.inputs[0].shape, dtype);
  return {{call.inputs[0].shape, dtype}};
}

void require_movable(const Call& call) {
  for (const TensorType& input : call.inputs)
    call.require_dtype(input.dtype != DType::i64,
                       "i64 exists at the boundary only; convert to i32");
}

Types reshape(const Call& call) {
  require_movable(call);
  const Shape shape(call.get<ShapeAttributes>().shape);
  call.require_shape(std::all_of(shape.begin(), shape.end(), [](auto size) { return size >= 0; }),
                     "sizes must not be negative");
  call.require_representable(shape, call.inputs[0].dtype);
  call.require_shape(shape.elements() == call.inputs[0].shape.elements(),
                     "the element counts differ");
  return {{shape, call.inputs[0].dtype}};
}

Types transpose(const Call& call) {
  require_movable(call);
  const Dims& axes = call.get<AxesAttributes>().axes;
  const Shape& in = call.inputs[0].shape;
  Dims sorted = axes, expected(static_cast<std::size_t>(in.rank()));
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<std::int64_t>(i);
  call.require_shape(sorted == expected, "axes must be a permutation of the operand's axes");
  Dims sizes;
  for (const std::int64_t axis : axes) sizes.push_back(in[axis]);
  return {{Shape(sizes), call.inputs[0].dtype}};
}

Types broadcast_to(const Call& call) {
  require_movable(call);
  const Shape shape(call.get<ShapeAttributes>().shape);
  const Shape& in = call.inputs[0].shape;
  call.require_representable(shape, call.inputs[0].dtype);
  call.require_shape(shape.rank() >= in.rank(), "the result has fewer axes than the operand");
  for (std::int64_t axis = 0; axis < in.rank(); ++axis) {
    const std::int64_t to = shape[shape.rank() - in.rank() + axis];
    call.require_shape(to >= 0 && (in[axis] == to || in[axis] == 1), "only axes of size 1 stretch");
  }
  return {{shape, call.inputs[0].dtype}};
}

Types slice(const Call& call) {
  require_movable(call);
  const auto& a = call.get<SliceAttributes>();
  const Shape& in = call.inputs[0].shape;
  const auto rank = static_cast<std::size_t>(in.rank());
  call.require_shape(a.start.size() == rank && a.stop.size() == rank && a.step.size() == rank,
                     "wants one start, stop and step per axis");
  Dims sizes;
  for (std::size_t axis = 0; axis < rank; ++axis) {
    call.require_shape(0 <= a.start[axis] && a.start[axis] <= a.stop[axis] &&
                           a.stop[axis] <= in[static_cast<std::int64_t>(axis)] && a.step[axis] >= 1,
                       "wants 0 <= start <= stop <= size and step >= 1");
    const std::int64_t length = a.stop[axis] - a.start[axis];
    sizes.push_back(length / a.step[axis] + (length % a.step[axis] > 0));
  }
  return {{Shape(sizes), call.inputs[0].dtype}};
}

Types pad(const Call& call) {
  require_movable(call);
  const auto& a = call.get<PadAttributes>();
  const Shape& in = call.inputs[0].shape;
  call.require_number(a.value);
  call.require_shape(
      a.low.size() == static_cast<std::size_t>(in.rank()) && a.high.size() == a.low.size(),
      "wants one low and one high per axis");
  Dims sizes;
  for (std::int64_t axis = 0; axis < in.rank(); ++axis) {
    const auto i = static_cast<std::size_t>(axis);
    call.require_shape(a.low[i] >= 0 && a.high[i] >= 0, "padding must not be negative");
    sizes.push_back(call.sum(call.sum(a.low[i], in[axis]), a.high[i]));
  }
  call.require_representable(Shape(sizes), call.inputs[0].dtype);
  return {{Shape(sizes), call.inputs[0].dtype}};
}

Types concat(const Call& call) {
  require_movable(call);
  const std::int64_t axis = call.get<AxisAttributes>().axis;
  TensorType result = call.inputs[0];
  call.require_shape(axis >= 0 && axis < result.shape.rank(), "the axis is out of range");
  for (std::size_t i = 1; i < call.inputs.size(); ++i) {
    Shape other = call.inputs[i].shape;
    call.require_dtype(call.inputs[i].dtype == result.dtype,
                       "the operands' dtypes differ; convert one");
    call.require_shape(other.rank() == result.shape.rank(), "the operands' ranks differ");
    result.shape[axis] = call.sum(result.shape[axis], other[axis]);
    other[axis] = result.shape[axis];
    call.require_shape(other == result.shape, "the operands' shapes differ beside the joined axis");
  }
  call.require_representable(result.shape, result.dtype);
  return {result};
}

// Planning counts on axes that exist, each once and in order. Files may hold any.
void require_axes(const Call& call) {
  std::int64_t last = -1;
  for (const std::int64_t axis : call.get<AxesAttributes>().axes) {
    call.require_shape(axis >= 0 && axis < call.inputs[0].shape.rank(), "an axis is out of range");
    call.require_shape(axis > last, "the axes must ascend");
    last = axis;
  }
}

Types flip(const Call& call) {
  require_movable(call);
  require_axes(call);
  return {call.inputs[0]};
}

Types reduce(const Call& call) {
  call.require_dtype(computes(call.inputs[0].dtype), "wants f32, f64, i32 or u32; convert first");
  require_axes(call);
  TensorType result = call.inputs[0];
  for (const std::int64_t axis : call.get<AxesAttributes>().axes) result.shape[axis] = 1;
  return {result};
}

void require_axis(const Call& call) {
  const std::int64_t axis = call.get<AxisAttributes>().axis;
  call.require_shape(axis >= 0 && axis < call.inputs[0].shape.rank(), "the axis is out of range");
}

// The result is positions along an axis.
void require_positions(const Call& call, std::int64_t length) {
  call.require_shape(can_count(DType::i32, length),
                     "positions are i32, and the axis has more than 2^31 elements");
}

Types argmax(const Call& call) {
  require_axis(call);
  call.require_dtype(computes(call.inputs[0].dtype), "wants f32, f64, i32 or u32; convert first");
  Shape result = call.inputs[0].shape;
  auto& size = result[call.get<AxisAttributes>().axis];
  call.require_shape(size > 0, "the axis is empty: there is no maximum");
  require_positions(call, size);
  size = 1;
  return {{result, DType::i32}};
}

// Checks the dtypes of the two operands and of their contraction. Returns that of the result.
DType contracted(const Call& call, const ContractAttributes& dtypes) {
  const DType a = call.inputs[0].dtype, b = call.inputs[1].dtype;
  call.require_dtype(is_floating(a) && is_floating(b),
                     "wants operands of bf16, f16, f32 or f64; convert first");
  call.require_dtype((a == DType::f64) == (b == DType::f64),
                     "the operands' dtypes differ, and f64 meets only f64; convert one");
  call.require_dtype(dtypes.accumulate == contraction_of(a, b).accumulate,
                     "products of bf16, f16 and f32 are summed in f32, those of f64 in f64");
  call.require_dtype(is_floating(dtypes.result) &&
                         (dtypes.result == DType::f64) == (dtypes.accumulate == DType::f64),
                     "the result of f32 sums is f32, bf16 or f16, that of f64 sums is f64");
  return dtypes.result;
}

Types matmul(const Call& call) {
  const Shape &a = call.inputs[0].shape, &b = call.inputs[1].shape;
  const DType dtype = contracted(call, call.get<ContractAttributes>());
  call.require_shape(a.rank() >= 2 && b.rank() >= 2, "wants operands of at least two axes");
  call.require_shape(a.rank() == b.rank(), "the operands' ranks differ");
  const std::int64_t rank = a.rank();
  call.require_shape(a[rank - 1] == b[rank - 2],
                     "the inner sizes differ (last axis of a, last but one of b)");
  Shape result = a;
  for (std::int64_t axis = 0; axis < rank - 2; ++axis)
    call.require_shape(a[axis] == b[axis], "the batch axes differ");
  result[rank - 1] = b[rank - 1];
  call.require_representable(result, dtype);
  return {{result, dtype}};
}

void require_indices(const Call& call) {
  call.require_dtype(call.inputs[1].dtype == DType::i32, "indices must be i32; convert first");
}

Types take(const Call& call) {
  require_axis(call);
  require_indices(call);
  const Shape &x = call.inputs[0].shape, &indices = call.inputs[1].shape;
  const auto axis = call.get<AxisAttributes>().axis;
  Dims sizes(x.begin(), x.begin() + axis);
  sizes.insert(sizes.end(), indices.begin(), indices.end());
  sizes.insert(sizes.end(), x.begin() + axis + 1, x.end());
  call.require_shape(x[axis] > 0 || indices.elements() == 0,
                     "the axis is empty: there is nothing to take");
  call.require_representable(Shape(sizes), call.inputs[0].dtype);
  return {{Shape(sizes), call.inputs[0].dtype}};
}

Types index_add(const Call& call) {
  require_axis(call);
  require_indices(call);
  const auto axis = call.get<AxisAttributes>().axis;
  call.require_dtype(computes(call.inputs[0].dtype) && call.inputs[2].dtype == call.inputs[0].dtype,
                     "base and updates must have one of f32, f64, i32, u32");
  call.require_shape(call.inputs[1].shape.rank() == 1, "indices must have one axis");
  Shape expected = call.inputs[0].shape;
  call.require_shape(expected[axis] > 0 || call.inputs[1].shape.elements() == 0,
                     "the axis is empty: there is nothing to index");
  expected[axis] = call.inputs[1].shape[0];
  call.require_shape(call.inputs[2].shape == expected,
                     "updates must have the base's shape with the axis as long as the indices");
  return {call.inputs[0]};
}

void require_along(const Call& call) {
  require_axis(call);
  require_indices(call);
  const auto axis = call.get<AxisAttributes>().axis;
  Shape x = call.inputs[0].shape, indices = call.inputs[1].shape;
  call.require_shape(x.rank() == indices.rank(), "indices must have the operand's rank");
  call.require_shape(x[axis] > 0 || indices.elements() == 0,
                     "the axis is empty: there is nothing to index");
  x[axis] = indices[axis];
  call.require_shape(x == indices, "indices must have the operand's shape beside the axis");
}

Types take_along_axis(const Call& call) {
  require_along(call);
  return {{call.inputs[1].shape, call.inputs[0].dtype}};
}

Types scatter_add(const Call& call) {
  require_along(call);
  call.require_dtype(computes(call.inputs[0].dtype) && call.inputs[2].dtype == call.inputs[0].dtype,
                     "base and updates must have one of f32, f64, i32, u32");
  call.require_shape(call.inputs[2].shape == call.inputs[1].shape,
                     "updates must have the indices' shape");
  return {call.inputs[0]};
}

Types random_bits(const Call& call) {
  call.require_dtype(call.inputs[0].dtype == DType::u32 && call.inputs[1].dtype == DType::u32,
                     "key and stream must be u32");
  call.require_shape(call.inputs[0].shape == Shape{2} && call.inputs[1].shape == Shape{},
                     "wants a key u32[2] and a stream u32[]");
  const Shape shape(call.get<RandomAttributes>().shape);
  call.require_shape(std::all_of(shape.begin(), shape.end(), [](auto size) { return size >= 0; }),
                     "sizes must not be negative");
  call.require_representable(shape, DType::u32);
  return {{shape, DType::u32}};
}

Types numeric_axis(const Call& call) {
  require_axis(call);
  return numeric(call);
}

Types floating_axis(const Call& call) {
  require_axis(call);
  return floating(call);
}

Types normalise(const Call& call) {
  call.require_shape(call.inputs[0].shape.rank() >= 1, "wants at least one axis");
  TensorType row = floating(call)[0];
  call.require_number(call.get<EpsilonAttributes>().epsilon);
  row.shape[row.shape.rank() - 1] = 1;
  return {call.inputs[0], row};
}

Types argsort(const Call& call) {
  const std::int64_t axis = call.get<SortAttributes>().axis;
  call.require_shape(axis >= 0 && axis < call.inputs[0].shape.rank(), "the axis is out of range");
  call.require_dtype(computes(call.inputs[0].dtype), "wants f32, f64, i32 or u32; convert first");
  require_positions(call, call.inputs[0].shape[axis]);
  return {{call.inputs[0].shape, DType::i32}};
}

// Requires lists of a height and a width from `least` to 2^31 - 1, so that products of two do not
// overflow.
void require_pairs(const Call& call, std::initializer_list<const Dims*> lists, std::int64_t least) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  const auto fits = [&](std::int64_t entry) { return entry >= least && entry <= most; };
  for (const Dims* list : lists)
    call.require_shape(list->size() == 2 && fits((*list)[0]) && fits((*list)[1]),
                       "wants sizes of height and width, each in range");
}

Types windows(const Call& call) {
  require_movable(call);
  const auto& a = call.get<WindowAttributes>();
  const Shape& x = call.inputs[0].shape;
  call.require_shape(x.rank() == 4, "wants an image [batch, height, width, channels]");
  require_pairs(call, {&a.kernel, &a.stride, &a.dilation}, 1);
  const Dims image{x[1], x[2]};
  require_pairs(call, {&image}, 0);
  Dims sizes{x[0], 0, 0, a.kernel[0], a.kernel[1], x[3]};
  for (std::size_t k = 0; k < 2; ++k) {
    const std::int64_t room =
        x[static_cast<std::int64_t>(k) + 1] - a.dilation[k] * (a.kernel[k] - 1) - 1;
    call.require_shape(room >= 0, "the window does not fit into the image");
    sizes[k + 1] = room / a.stride[k] + 1;
  }
  call.require_representable(Shape(sizes), call.inputs[0].dtype);
  return {{Shape(sizes), call.inputs[0].dtype}};
}

Types conv2d(const Call& call) {
  const Shape &x = call.inputs[0].shape, &w = call.inputs[1].shape;
  const auto& a = call.get<ConvAttributes>();
  const DType dtype = contracted(call, a.contraction());
  call.require_shape(x.rank() == 4, "wants an image [batch, height, width, channels]");
  call.require_shape(w.rank() == 4, "wants a weight [height, width, in / groups, out]");
  const Dims image{x[1], x[2]}, kernel{w[0], w[1]};
  require_pairs(call, {&image, &kernel}, 0);
  require_pairs(call, {&a.stride, &a.dilation, &a.spread}, 1);
  require_pairs(call, {&a.low, &a.high}, std::numeric_limits<std::int32_t>::min());
  call.require_shape(w[0] >= 1 && w[1] >= 1, "the kernel is empty");
  std::int64_t channels = 0;
  call.require_shape(a.groups >= 1 && !__builtin_mul_overflow(w[2], a.groups, &channels) &&
                         channels == x[3] && w[3] % a.groups == 0,
                     "the weight does not fit the channels and groups");
  Shape y{x[0], 0, 0, w[3]};
  for (std::int64_t k = 0; k < 2; ++k) {
    const auto i = static_cast<std::size_t>(k);
    const std::int64_t spread = x[k + 1] == 0 ? 0 : (x[k + 1] - 1) * a.spread[i] + 1;
    const std::int64_t room = spread + a.low[i] + a.high[i] - a.dilation[i] * (w[k] - 1) - 1;
    call.require_shape(room >= 0, "the kernel does not fit into the image");
    y[k + 1] = room / a.stride[i] + 1;
  }
  call.require_representable(y, dtype);
  return {{y, dtype}};
}

Types after(const Call& call) { return {call.inputs[0]}; }

Types region(const Call& call) {
  const auto& held = call.get<RegionAttributes>().region;
  call.require_shape(held != nullptr, "there is no region");
  return output_types(*held, call.inputs, call.where);
}

// Checks q, k and v, the operands that must have the shape of q or k, and the mask, if there is one
// operand more than `operands`. Returns the types of y and lse.
Types attention_over(const Call& call, std::initializer_list<std::size_t> like_q,
                     std::initializer_list<std::size_t> like_k, std::size_t operands) {
  call.require_shape(call.inputs.size() == operands || call.inputs.size() == operands + 1,
                     "wrong number of operands");
  call.require_dtype(computes_floating(call.inputs[0].dtype), "wants f32 or f64; convert first");
  call.require_number(call.get<AttentionAttributes>().scale);
  for (const TensorType& input : call.inputs)
    call.require_dtype(input.dtype == call.inputs[0].dtype,
                       "the operands' dtypes differ; convert one");
  const Shape &q = call.inputs[0].shape, &k = call.inputs[1].shape;
  const std::int64_t rank = q.rank();
  call.require_shape(rank >= 2 && k.rank() == rank,
                     "wants q [.., queries, d] and k, v [.., keys, d]");
  Shape keys = q;
  keys[rank - 2] = k[rank - 2];
  call.require_shape(keys == k && call.inputs[2].shape == k,
                     "q, k and v must agree in batch axes and features, k and v in keys");
  for (const std::size_t i : like_q)
    call.require_shape(call.inputs[i].shape == q, "an operand has another shape than q");
  for (const std::size_t i : like_k)
    call.require_shape(call.inputs[i].shape == k, "an operand has another shape than k");
  if (call.inputs.size() > operands) {
    Shape scores = q;
    scores[rank - 1] = k[rank - 2];
    call.require_shape(call.inputs.back().shape == scores,
                       "the mask must be [.., queries, keys] with the batch axes of q");
  }
  Dims rows(q.begin(), q.end() - 1);
  return {call.inputs[0], {Shape(rows), call.inputs[0].dtype}};
}

Types attention(const Call& call) { return attention_over(call, {}, {}, 3); }

Types attention_dual(const Call& call) {
  call.require_shape(call.inputs.size() >= 6, "wrong number of operands");
  const Types once = attention_over(call, {3}, {4, 5}, 6);
  return {once[0], once[1], once[0], once[1]};
}

Types attention_backward(const Call& call) {
  call.require_shape(call.inputs.size() >= 5, "wrong number of operands");
  const bool by_delta = is_by_delta(call.inputs[0].shape, call.inputs[3].shape);
  const Types forward =
      by_delta ? attention_over(call, {5}, {}, 6) : attention_over(call, {3}, {}, 5);
  call.require_shape(call.inputs[4] == forward[1] && (!by_delta || call.inputs[3] == forward[1]),
                     "the cotangent of lse, or lse and delta, must be [.., queries]");
  return {call.inputs[0], call.inputs[1], call.inputs[2]};
}

using ShapeRule = Types (*)(const Call&);
constexpr std::array<ShapeRule, op_count> shape_rules = {
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule) rule,
#include "engine/graph/ops.def"
#undef FLUXION_OP
};

}  // namespace

std::vector<TensorType> infer_types(Op op, const Attributes& attributes,
                                    std::span<const TensorType> inputs, const Location& where) {
  const Call call{op, attributes, inputs, where};
  const int wanted = info(op).inputs;
  if (wanted < 0 ? inputs.empty() : static_cast<std::size_t>(wanted) != inputs.size())
    call.fail_shape("wrong number of operands, in a call");
  if (attributes.index() != info(op).attributes)
    call.fail_shape("attributes of another op, in a call");
  std::vector<TensorType> outputs = shape_rules[static_cast<std::size_t>(op)](call);
  for (const TensorType& output : outputs) call.require_representable(output.shape, output.dtype);
  return outputs;
}

Shape broadcast_shapes(Op op, const TensorType& a, const TensorType& b, const Location& where) {
  const std::int64_t rank = std::max(a.shape.rank(), b.shape.rank());
  Dims sizes(static_cast<std::size_t>(rank));
  for (std::int64_t axis = 0; axis < rank; ++axis) {
    const std::int64_t in_a = axis - (rank - a.shape.rank()), in_b = axis - (rank - b.shape.rank());
    const std::int64_t size_a = in_a < 0 ? 1 : a.shape[in_a], size_b = in_b < 0 ? 1 : b.shape[in_b];
    if (size_a != size_b && size_a != 1 && size_b != 1) {
      const TensorType both[] = {a, b};
      Call{op, NoAttributes{}, both, where}.fail_shape(
          "shapes don't broadcast (align at the right; only size 1 stretches), in a call");
    }
    sizes[static_cast<std::size_t>(axis)] = size_a == 1 ? size_b : size_a;
  }
  if (!is_representable(sizes, a.dtype)) {
    const TensorType both[] = {a, b};
    Call{op, NoAttributes{}, both, where}.require_representable(Shape(sizes), a.dtype);
  }
  return Shape(sizes);
}

std::int64_t normal_axis(Op op, std::int64_t axis, const TensorType& type, const Location& where) {
  const std::int64_t rank = type.shape.rank();
  if (axis < -rank || axis >= rank) {
    throw ShapeError(std::string(to_string(op)) + ": axis " + std::to_string(axis) +
                     " is out of range for " + to_string(type) + ", which has " +
                     std::to_string(rank) + " axes (" + to_string(where) + ")");
  }
  return axis < 0 ? axis + rank : axis;
}

Dims normal_axes(Op op, const Dims& axes, const TensorType& type, const Location& where) {
  Dims result;
  for (const std::int64_t axis : axes) result.push_back(normal_axis(op, axis, type, where));
  if (axes.empty())
    for (std::int64_t axis = 0; axis < type.shape.rank(); ++axis) result.push_back(axis);
  std::sort(result.begin(), result.end());
  if (std::adjacent_find(result.begin(), result.end()) != result.end())
    throw ShapeError(std::string(to_string(op)) + ": an axis is listed twice in " +
                     to_string(axes) + " for " + to_string(type) + " (" + to_string(where) + ")");
  return result;
}

}  // namespace fluxion
