#include "backends/reference/kernels.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "backends/reference/elements.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/graph/philox.h"

namespace fluxion::reference_backend {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// An operand or a result.
struct Array : Elements {
  Array(std::byte* data, const TensorType& type)
      : Elements(data, type.dtype), shape(type.shape), strides(row_major_strides(type.shape)) {}

  std::int64_t size() const { return shape.elements(); }
  std::int64_t offset(const Dims& position) const {
    std::int64_t sum = 0;
    for (std::size_t axis = 0; axis < position.size(); ++axis)
      sum += position[axis] * strides[axis];
    return sum;
  }

  Shape shape;
  Dims strides;
};

struct Call {
  const OpKernel& kernel;
  std::vector<Array> inputs, outputs;

  template <class T>
  const T& get() const {
    return std::get<T>(kernel.attributes);
  }
  const Array& in(std::size_t i) const { return inputs[i]; }
  const Array& out() const { return outputs[0]; }
};

// Moves to the next position of `shape` in row-major order; after the last comes the first.
void advance(Dims& position, const Shape& shape) {
  for (std::int64_t axis = shape.rank() - 1; axis >= 0; --axis) {
    auto& coordinate = position[static_cast<std::size_t>(axis)];
    if (++coordinate < shape[axis]) return;
    coordinate = 0;
  }
}

// Calls f(position, i) for every position of `shape` in row-major order; i counts them.
void for_each_position(const Shape& shape,
                       const std::function<void(const Dims&, std::int64_t)>& f) {
  Dims position(static_cast<std::size_t>(shape.rank()), 0);
  const std::int64_t count = shape.elements();
  for (std::int64_t i = 0; i < count; ++i, advance(position, shape)) f(position, i);
}

// A tensor as [outer, length, inner] around one axis: element (before, i, after) is number
// (before * length + i) * inner + after.
struct Lines {
  std::int64_t outer = 1, length = 1, inner = 1;
  Lines(const Shape& shape, std::int64_t axis) : length(shape[axis]) {
    for (std::int64_t i = 0; i < axis; ++i) outer *= shape[i];
    for (std::int64_t i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  }
  std::int64_t at(std::int64_t before, std::int64_t i, std::int64_t after) const {
    return (before * length + i) * inner + after;
  }
};

std::int64_t clamped_index(const Array& indices, std::int64_t i, std::int64_t length) {
  return std::clamp<std::int64_t>(indices.get<std::int64_t>(i), 0, length - 1);
}

// Integer arithmetic modulo 2^64; storing wraps further, to the dtype.
template <class F>
std::int64_t wrapping(std::int64_t a, std::int64_t b, F f) {
  return static_cast<std::int64_t>(f(static_cast<std::uint64_t>(a), static_cast<std::uint64_t>(b)));
}
std::int64_t plus(std::int64_t a, std::int64_t b) { return wrapping(a, b, std::plus<>()); }
double plus(double a, double b) { return a + b; }

// ---- leaves

void constant(const Call& call) {
  for (std::int64_t i = 0; i < call.out().size(); ++i)
    call.out().put(i, call.get<ValueAttributes>().value);
}

void iota(const Call& call) {
  const auto axis = static_cast<std::size_t>(call.get<AxisAttributes>().axis);
  for_each_position(call.out().shape, [&](const Dims& position, std::int64_t i) {
    call.out().put(i, position[axis]);
  });
}

// ---- elementwise

double sign(double x) { return std::isnan(x) ? x : static_cast<double>((x > 0) - (x < 0)); }
double maximum(double a, double b) {
  return std::isnan(a) || std::isnan(b) ? std::nan("") : std::max(a, b);
}
double minimum(double a, double b) {
  return std::isnan(a) || std::isnan(b) ? std::nan("") : std::min(a, b);
}

double sigmoid(double x) {
  const double e = std::exp(-std::abs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

double unary(Op op, double x) {
  switch (op) {
    case Op::neg:
      return -x;
    case Op::exp:
      return std::exp(x);
    case Op::expm1:
      return std::expm1(x);
    case Op::log:
      return std::log(x);
    case Op::log1p:
      return std::log1p(x);
    case Op::sin:
      return std::sin(x);
    case Op::cos:
      return std::cos(x);
    case Op::tanh:
      return std::tanh(x);
    case Op::sigmoid:
      return sigmoid(x);
    case Op::sigmoid_slope:
      return sigmoid(x) * sigmoid(-x);
    case Op::erf:
      return std::erf(x);
    case Op::erfc:
      return std::erfc(x);
    case Op::sqrt:
      return std::sqrt(x);
    case Op::rsqrt:
      return 1 / std::sqrt(x);
    case Op::abs:
      return std::abs(x);
    case Op::sign:
      return sign(x);
    case Op::floor:
      return std::floor(x);
    default:
      throw Error("reference: no unary " + std::string(to_string(op)) + " of floating numbers");
  }
}

std::int64_t unary(Op op, std::int64_t x) {
  switch (op) {
    case Op::neg:
      return wrapping(0, x, std::minus<>());
    case Op::abs:
      return x < 0 ? -x : x;
    case Op::sign:
      return (x > 0) - (x < 0);
    default:
      throw Error("reference: no unary " + std::string(to_string(op)) + " of integers");
  }
}

double binary(Op op, double a, double b) {
  switch (op) {
    case Op::add:
      return a + b;
    case Op::sub:
      return a - b;
    case Op::mul:
      return a * b;
    case Op::div:
      return a / b;
    case Op::pow:
      return std::pow(a, b);
    case Op::atan2:
      return std::atan2(a, b);
    case Op::hypot:
      return std::hypot(a, b);
    case Op::strong_mul:
      return a == 0 || b == 0 ? 0 : a * b;
    case Op::strong_div:
      return a == 0 || std::isinf(b) ? 0 : a / b;
    case Op::maximum:
      return maximum(a, b);
    case Op::minimum:
      return minimum(a, b);
    default:
      throw Error("reference: no binary " + std::string(to_string(op)) + " of floating numbers");
  }
}

std::int64_t binary(Op op, std::int64_t a, std::int64_t b) {
  switch (op) {
    case Op::add:
      return plus(a, b);
    case Op::sub:
      return wrapping(a, b, std::minus<>());
    case Op::mul:
      return wrapping(a, b, std::multiplies<>());
    case Op::maximum:
      return std::max(a, b);
    case Op::minimum:
      return std::min(a, b);
    case Op::shift_right:
      return a >> (b & 31);
    default:
      throw Error("reference: no binary " + std::string(to_string(op)) + " of integers");
  }
}

template <class Number>
bool compare(Op op, Number a, Number b) {
  switch (op) {
    case Op::lt:
      return a < b;
    case Op::le:
      return a <= b;
    case Op::gt:
      return a > b;
    case Op::ge:
      return a >= b;
    case Op::eq:
      return a == b;
    default:
      return a != b;
  }
}

void elementwise(const Call& call) {
  const Op op = call.kernel.op;
  const std::int64_t count = call.out().size();
  if (op == Op::identity || op == Op::stop_gradient) {
    for (std::int64_t i = 0; i < count; ++i) call.out().copy(i, call.in(0), i);
  } else if (op == Op::where) {
    for (std::int64_t i = 0; i < count; ++i)
      call.out().copy(i, call.in(0).get<std::int64_t>(i) ? call.in(1) : call.in(2), i);
  } else {
    with_number(call.in(0).dtype(), [&](auto zero) {
      using Number = decltype(zero);
      for (std::int64_t i = 0; i < count; ++i) {
        const auto x = call.in(0).get<Number>(i);
        if (op == Op::convert)
          call.out().put(i, x);
        else if (call.inputs.size() == 1)
          call.out().put(i, unary(op, x));
        else if (is_comparison(op))
          call.out().put(i, static_cast<std::int64_t>(compare(op, x, call.in(1).get<Number>(i))));
        else
          call.out().put(i, binary(op, x, call.in(1).get<Number>(i)));
      }
    });
  }
}

// ---- movement: for each element of the result, find the element of the operand

void reshape(const Call& call) {
  for (std::int64_t i = 0; i < call.out().size(); ++i) call.out().copy(i, call.in(0), i);
}

void transpose(const Call& call) {
  const Dims& axes = call.get<AxesAttributes>().axes;
  Dims from(axes.size());
  for_each_position(call.out().shape, [&](const Dims& position, std::int64_t i) {
    for (std::size_t axis = 0; axis < axes.size(); ++axis)
      from[static_cast<std::size_t>(axes[axis])] = position[axis];
    call.out().copy(i, call.in(0), call.in(0).offset(from));
  });
}

void broadcast_to(const Call& call) {
  const Shape& shape = call.in(0).shape;
  const auto added = static_cast<std::size_t>(call.out().shape.rank() - shape.rank());
  Dims from(shape.dims().size());
  for_each_position(call.out().shape, [&](const Dims& position, std::int64_t i) {
    for (std::size_t axis = 0; axis < from.size(); ++axis)
      from[axis] = shape.dims()[axis] == 1 ? 0 : position[added + axis];
    call.out().copy(i, call.in(0), call.in(0).offset(from));
  });
}

void slice(const Call& call) {
  const auto& [start, stop, step] = call.get<SliceAttributes>();
  Dims from(start.size());
  for_each_position(call.out().shape,
                    [&, &start = start, &step = step](const Dims& position, std::int64_t i) {
                      for (std::size_t axis = 0; axis < from.size(); ++axis)
                        from[axis] = start[axis] + position[axis] * step[axis];
                      call.out().copy(i, call.in(0), call.in(0).offset(from));
                    });
}

void pad(const Call& call) {
  const PadAttributes& attributes = call.get<PadAttributes>();
  for (std::int64_t i = 0; i < call.out().size(); ++i) call.out().put(i, attributes.value);
  Dims to(attributes.low.size());
  for_each_position(call.in(0).shape, [&](const Dims& position, std::int64_t i) {
    for (std::size_t axis = 0; axis < to.size(); ++axis)
      to[axis] = position[axis] + attributes.low[axis];
    call.out().copy(call.out().offset(to), call.in(0), i);
  });
}

void concat(const Call& call) {
  const auto axis = static_cast<std::size_t>(call.get<AxisAttributes>().axis);
  std::int64_t start = 0;
  for (const Array& part : call.inputs) {
    for_each_position(part.shape, [&](const Dims& position, std::int64_t i) {
      call.out().copy(call.out().offset(position) + start * call.out().strides[axis], part, i);
    });
    start += part.shape.dims()[axis];
  }
}

void flip(const Call& call) {
  const Dims& axes = call.get<AxesAttributes>().axes;
  Dims from;
  for_each_position(call.out().shape, [&](const Dims& position, std::int64_t i) {
    from = position;
    for (const std::int64_t axis : axes) {
      auto& coordinate = from[static_cast<std::size_t>(axis)];
      coordinate = call.in(0).shape[axis] - 1 - coordinate;
    }
    call.out().copy(i, call.in(0), call.in(0).offset(from));
  });
}

void windows(const Call& call) {
  const auto& a = call.get<WindowAttributes>();
  for_each_position(call.out().shape, [&](const Dims& position, std::int64_t i) {
    const auto pixel = [&](std::size_t k) {
      return position[k + 1] * a.stride[k] + position[k + 3] * a.dilation[k];
    };
    call.out().copy(i, call.in(0),
                    call.in(0).offset({position[0], pixel(0), pixel(1), position[5]}));
  });
}

// ---- reductions

// The result over no elements.
double nothing(Op op, DType, double) {
  return op == Op::sum ? 0 : op == Op::max ? -infinity : infinity;
}
std::int64_t nothing(Op op, DType dtype, std::int64_t) {
  if (op == Op::sum) return 0;
  if (dtype == DType::u32) return op == Op::max ? 0 : std::numeric_limits<std::uint32_t>::max();
  return op == Op::max ? std::numeric_limits<std::int32_t>::min()
                       : std::numeric_limits<std::int32_t>::max();
}

void reduce(const Call& call) {
  const Op op = call.kernel.op;
  with_number(call.in(0).dtype(), [&](auto zero) {
    std::vector<decltype(zero)> totals(static_cast<std::size_t>(call.out().size()),
                                       nothing(op, call.in(0).dtype(), zero));
    Dims to;
    for_each_position(call.in(0).shape, [&](const Dims& position, std::int64_t i) {
      to = position;
      for (const std::int64_t axis : call.get<AxesAttributes>().axes)
        to[static_cast<std::size_t>(axis)] = 0;
      auto& total = totals[static_cast<std::size_t>(call.out().offset(to))];
      const auto value = call.in(0).get<decltype(zero)>(i);
      total = op == Op::sum ? plus(total, value)
                            : binary(op == Op::max ? Op::maximum : Op::minimum, total, value);
    });
    for (std::int64_t i = 0; i < call.out().size(); ++i)
      call.out().put(i, totals[static_cast<std::size_t>(i)]);
  });
}

void argmax(const Call& call) {
  const Lines lines(call.in(0).shape, call.get<AxisAttributes>().axis);
  with_number(call.in(0).dtype(), [&](auto zero) {
    using Number = decltype(zero);
    for (std::int64_t before = 0; before < lines.outer; ++before)
      for (std::int64_t after = 0; after < lines.inner; ++after) {
        const auto value = [&](std::int64_t i) {
          return call.in(0).get<Number>(lines.at(before, i, after));
        };
        std::int64_t best = 0;
        for (std::int64_t i = 1; i < lines.length; ++i) {
          const bool best_is_nan = value(best) != value(best), is_nan = value(i) != value(i);
          if (!best_is_nan && (is_nan || value(i) > value(best))) best = i;
        }
        call.out().put(before * lines.inner + after, best);
      }
  });
}

void cumsum(const Call& call) {
  const Lines lines(call.in(0).shape, call.get<AxisAttributes>().axis);
  with_number(call.in(0).dtype(), [&](auto zero) {
    for (std::int64_t before = 0; before < lines.outer; ++before)
      for (std::int64_t after = 0; after < lines.inner; ++after) {
        auto total = zero;
        for (std::int64_t i = 0; i < lines.length; ++i) {
          total = plus(total, call.in(0).get<decltype(zero)>(lines.at(before, i, after)));
          call.out().put(lines.at(before, i, after), total);
        }
      }
  });
}

// Stable; NaN comes last in both directions.
void argsort(const Call& call) {
  const auto& a = call.get<SortAttributes>();
  const Lines lines(call.in(0).shape, a.axis);
  with_number(call.in(0).dtype(), [&](auto zero) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(lines.length));
    for (std::int64_t before = 0; before < lines.outer; ++before)
      for (std::int64_t after = 0; after < lines.inner; ++after) {
        const auto comes_before = [&](std::int64_t i, std::int64_t j) {
          const auto x = call.in(0).get<decltype(zero)>(lines.at(before, i, after)),
                     y = call.in(0).get<decltype(zero)>(lines.at(before, j, after));
          if (x != x || y != y) return x == x;
          return a.descending ? x > y : x < y;
        };
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), comes_before);
        for (std::int64_t i = 0; i < lines.length; ++i)
          call.out().put(lines.at(before, i, after), order[static_cast<std::size_t>(i)]);
      }
  });
}

// ---- contraction: [.., m, k] x [.., k, n] -> [.., m, n]

// For all operand dtypes: elements are read exactly, summed in f64, rounded to the accumulator's
// dtype, then to the result's.
void matmul(const Call& call) {
  const std::int64_t rank = call.out().shape.rank();
  const std::int64_t m = call.out().shape[rank - 2], n = call.out().shape[rank - 1],
                     k = call.in(0).shape[rank - 1];
  for (std::int64_t i = 0; i < call.out().size(); ++i) {
    const std::int64_t column = i % n, row = i / n % m, batch = i / n / m;
    double total = 0;
    for (std::int64_t j = 0; j < k; ++j)
      total += call.in(0).get<double>((batch * m + row) * k + j) *
               call.in(1).get<double>((batch * k + j) * n + column);
    if (call.get<ContractAttributes>().accumulate == DType::f32) total = static_cast<float>(total);
    call.out().put(i, total);
  }
}

// ---- index

void take(const Call& call) {
  const Lines lines(call.in(0).shape, call.get<AxisAttributes>().axis);
  const std::int64_t count = call.in(1).size();
  for (std::int64_t before = 0; before < lines.outer; ++before)
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t after = 0; after < lines.inner; ++after)
        call.out().copy((before * count + i) * lines.inner + after, call.in(0),
                        lines.at(before, clamped_index(call.in(1), i, lines.length), after));
}

void take_along_axis(const Call& call) {
  const auto axis = static_cast<std::size_t>(call.get<AxisAttributes>().axis);
  Dims from;
  for_each_position(call.out().shape, [&](const Dims& position, std::int64_t i) {
    from = position;
    from[axis] = clamped_index(call.in(1), i, call.in(0).shape.dims()[axis]);
    call.out().copy(i, call.in(0), call.in(0).offset(from));
  });
}

// index_add adds updates[.., i, ..] at axis position indices[i]; scatter_add adds updates[position]
// at axis position indices[position]. Sums are rounded once.
void add_at_indices(const Call& call) {
  const Array &base = call.in(0), &indices = call.in(1), &updates = call.in(2);
  const auto axis = static_cast<std::size_t>(call.get<AxisAttributes>().axis);
  const std::int64_t length = base.shape.dims()[axis];
  with_number(base.dtype(), [&](auto zero) {
    using Number = decltype(zero);
    std::vector<Number> totals(static_cast<std::size_t>(base.size()));
    for (std::int64_t i = 0; i < base.size(); ++i)
      totals[static_cast<std::size_t>(i)] = base.get<Number>(i);
    Dims to;
    if (length > 0)
      for_each_position(updates.shape, [&](const Dims& position, std::int64_t i) {
        to = position;
        to[axis] =
            clamped_index(indices, call.kernel.op == Op::index_add ? position[axis] : i, length);
        auto& total = totals[static_cast<std::size_t>(base.offset(to))];
        total = plus(total, updates.get<Number>(i));
      });
    for (std::int64_t i = 0; i < base.size(); ++i)
      call.out().put(i, totals[static_cast<std::size_t>(i)]);
  });
}

// ---- random

void random_bits(const Call& call) {
  const auto word = [&](std::size_t input, std::int64_t i) {
    return static_cast<std::uint32_t>(call.in(input).get<std::int64_t>(i));
  };
  const auto domain = static_cast<std::uint32_t>(call.get<RandomAttributes>().domain);
  for (std::int64_t i = 0; i < call.out().size(); ++i) {
    const auto block = random_block(static_cast<std::uint64_t>(i / 4), word(1, 0), domain,
                                    {word(0, 0), word(0, 1)});
    call.out().put(i, std::int64_t{block[static_cast<std::size_t>(i % 4)]});
  }
}

// ---- order

void after(const Call& call) {
  for (std::int64_t i = 0; i < call.out().size(); ++i) call.out().copy(i, call.in(0), i);
}

void (*kernel_of(Op op))(const Call&) {
  switch (op) {
    case Op::constant:
      return constant;
    case Op::iota:
      return iota;
    case Op::reshape:
      return reshape;
    case Op::transpose:
      return transpose;
    case Op::broadcast_to:
      return broadcast_to;
    case Op::slice:
      return slice;
    case Op::pad:
      return pad;
    case Op::concat:
      return concat;
    case Op::flip:
      return flip;
    case Op::windows:
      return windows;
    case Op::sum:
    case Op::max:
    case Op::min:
      return reduce;
    case Op::argmax:
      return argmax;
    case Op::cumsum:
      return cumsum;
    case Op::argsort:
      return argsort;
    case Op::matmul:
      return matmul;
    case Op::take:
      return take;
    case Op::take_along_axis:
      return take_along_axis;
    case Op::index_add:
    case Op::scatter_add:
      return add_at_indices;
    case Op::random_bits:
      return random_bits;
    case Op::after:
      return after;
    default:
      break;
  }
  if (info(op).op_class == OpClass::elementwise) return elementwise;
  throw Error("reference: no kernel for op " + std::string(to_string(op)));
}

}  // namespace

void run_op(const OpKernel& kernel, std::span<std::byte* const> buffers) {
  Call call{kernel, {}, {}};
  for (std::size_t i = 0; i < kernel.inputs.size(); ++i)
    call.inputs.emplace_back(buffers[static_cast<std::size_t>(kernel.inputs[i])],
                             kernel.input_types[i]);
  for (std::size_t i = 0; i < kernel.outputs.size(); ++i)
    call.outputs.emplace_back(buffers[static_cast<std::size_t>(kernel.outputs[i])],
                              kernel.output_types[i]);
  kernel_of(kernel.op)(call);
}

}  // namespace fluxion::reference_backend
