#include "tests/random/plan_only.h"

#include <algorithm>
#include <numeric>

#include "autograd/linearize.h"
#include "backends/reference/reference.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "engine/plan/plan.h"
#include "tests/random/program.h"

namespace fluxion::testing {

namespace {

// Draws values one after the other. Choices depend on shapes alone, so the same seed draws the same
// program on other parameters.
class LargeDrawing {
 public:
  // `given` take the place of new parameters, in their order.
  LargeDrawing(std::uint64_t seed, std::int64_t elements, Tensors given = {})
      : choices_(seed), elements_(elements), given_(std::move(given)) {}

  Tensors draw() {
    values_.push_back(parameter({Shape(large_dims()), DType::f32}));
    for (std::int64_t steps = choices_.between(3, 14); steps > 0; --steps)
      values_.push_back(step());
    return values_;
  }
  const Tensors& parameters() const { return parameters_; }

 private:
  Tensor parameter(const TensorType& type) {
    // Handles of tensors that are never evaluated need a device to name.
    static const Device device = reference();
    const std::size_t number = parameters_.size();
    parameters_.push_back(number < given_.size()
                              ? given_[number]
                              : make_leaf(Op::parameter,
                                          IndexAttributes{static_cast<std::int64_t>(number)}, type,
                                          device));
    return parameters_.back();
  }

  // One to five axes, some of them odd, with about as many elements as wanted.
  Dims large_dims() {
    constexpr std::int64_t factors[] = {3, 64, 2, 7, 1, 100, 5, 257, 16, 1024, 31};
    Dims dims;
    std::int64_t product = 1;
    for (std::int64_t rank = choices_.between(0, 4); rank > 0; --rank) {
      dims.push_back(choices_.any<std::int64_t>(factors));
      product *= dims.back();
    }
    const std::int64_t last = elements_ / product + choices_.between(1, 3);
    dims.insert(dims.begin() + choices_.below(static_cast<std::int64_t>(dims.size()) + 1), last);
    return dims;
  }

  bool small_enough(const Shape& shape) const { return shape.elements() <= 8 * elements_; }

  // The latest value, or an earlier one.
  Tensor any() {
    return choices_.one_in(3) ? values_[static_cast<std::size_t>(
                                    choices_.below(static_cast<std::int64_t>(values_.size())))]
                              : values_.back();
  }
  Tensor floating(const Tensor& x) {
    const bool computes = x.dtype() == DType::f32 || x.dtype() == DType::f64;
    return computes ? x : convert(x, DType::f32);
  }
  std::int64_t axis_of(const Tensor& x) { return choices_.below(x.rank()); }
  // Mostly small, at times as large as the axis.
  std::int64_t distance(std::int64_t size) {
    return choices_.one_in(4) ? choices_.below(size + 1)
                              : choices_.below(std::min<std::int64_t>(size, 5) + 1);
  }

  Tensor step() {
    Tensor x = any();
    if (x.rank() == 0) x = parameter({Shape(large_dims()), DType::f32});
    constexpr int kinds[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 0, 1, 4};
    switch (choices_.any<int>(kinds)) {
      case 0:
        return joined(x);
      case 1:
        return padded(x);
      case 2:
        return cut(x);
      case 3:
        return reshaped(x);
      case 4:
        return transpose(x, permutation(x.rank()));
      case 5:
        return flip(x, some_axes(x.rank()));
      case 6:
        return repeated(x);
      case 7:
        return reduced(floating(x));
      case 8:
        return tanh(floating(x));
      case 9:
        return combined(floating(x));
      case 10:
        return choices_.one_in(2) ? softmax(floating(x), axis_of(x))
                                  : layer_norm(floating(x), 1e-3);
      case 11:
        return product(floating(x));
      case 12:
        return indexed(floating(x));
      case 13:
        return where(lt(iota(x.shape(), axis_of(x), DType::f32, x.device()), choices_.below(1000)),
                     floating(x), 0.0);
      default:
        return choices_.one_in(2) ? convert(floating(x), DType::bf16)
                                  : convert(gt(floating(x), 0.0), DType::f32);
    }
  }

  Dims permutation(std::int64_t rank) {
    Dims axes(static_cast<std::size_t>(rank));
    std::iota(axes.begin(), axes.end(), 0);
    for (std::int64_t k = rank; k-- > 1;)
      std::swap(axes[static_cast<std::size_t>(k)],
                axes[static_cast<std::size_t>(choices_.below(k + 1))]);
    return axes;
  }
  Dims some_axes(std::int64_t rank) {
    Dims axes = permutation(rank);
    axes.resize(static_cast<std::size_t>(choices_.between(1, rank)));
    std::sort(axes.begin(), axes.end());
    return axes;
  }

  Tensor joined(const Tensor& x) {
    const std::int64_t axis = axis_of(x);
    Tensors pieces;
    for (std::int64_t count = choices_.between(2, 4); count > 0; --count) {
      const std::int64_t kind = choices_.below(4);
      if (kind == 0 || count == 1) {
        pieces.push_back(x);
      } else if (kind == 1 && x.shape()[axis] > 1) {
        pieces.push_back(slice_axis(x, axis, distance(x.shape()[axis] - 1), x.shape()[axis]));
      } else {
        Shape shape = x.shape();
        shape[axis] = choices_.between(1, x.shape()[axis] + 2);
        pieces.push_back(parameter({shape, x.dtype()}));
      }
    }
    if (choices_.one_in(2)) std::swap(pieces.front(), pieces.back());
    // Joined in parts: a concatenation of concatenations.
    const Tensor all = choices_.one_in(2) && pieces.size() > 2
                           ? concat({concat({pieces[0], pieces[1]}, axis), pieces[2]}, axis)
                           : concat(pieces, axis);
    return small_enough(all.shape()) ? all : x;
  }

  Tensor padded(const Tensor& x) {
    Dims low, high;
    const Dims axes = some_axes(x.rank());
    for (std::int64_t axis = 0; axis < x.rank(); ++axis) {
      const bool pads = std::binary_search(axes.begin(), axes.end(), axis);
      low.push_back(pads ? distance(x.shape()[axis]) : 0);
      high.push_back(pads ? distance(x.shape()[axis]) : 0);
    }
    const Tensor all = pad(x, low, high, choices_.one_in(3) && is_floating(x.dtype()) ? 1 : 0);
    return small_enough(all.shape()) ? all : x;
  }

  Tensor cut(const Tensor& x) {
    Dims start, stop, step;
    const Dims axes = some_axes(x.rank());
    for (std::int64_t axis = 0; axis < x.rank(); ++axis) {
      const std::int64_t size = x.shape()[axis];
      const bool cuts = size > 1 && std::binary_search(axes.begin(), axes.end(), axis);
      start.push_back(cuts ? distance(size - 1) : 0);
      stop.push_back(cuts ? std::max(size - distance(size - 1), start.back() + 1) : size);
      step.push_back(cuts && choices_.one_in(3) ? choices_.between(1, 3) : 1);
    }
    return slice(x, start, stop, step);
  }

  Tensor reshaped(const Tensor& x) {
    Dims dims = x.shape().dims();
    const std::int64_t kind = choices_.below(4);
    if (kind == 0) return reshape(x, {x.shape().elements()});
    const auto axis = static_cast<std::size_t>(axis_of(x));
    if (kind == 1 && axis + 1 < dims.size()) {
      dims[axis] *= dims[axis + 1];
      dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(axis) + 1);
      return reshape(x, Shape(dims));
    }
    for (const std::int64_t factor : {2, 3, 5, 7, 16, 31}) {
      if (dims[axis] % factor != 0 || dims[axis] == factor || dims.size() > 8) continue;
      dims[axis] /= factor;
      dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(axis) + choices_.below(2), factor);
      return reshape(x, Shape(dims));
    }
    return reshape(x, {x.shape().elements()});
  }

  Tensor repeated(const Tensor& x) {
    Dims dims = x.shape().dims();
    const auto at = static_cast<std::ptrdiff_t>(choices_.below(x.rank() + 1));
    dims.insert(dims.begin() + at, choices_.between(2, 4));
    if (!small_enough(Shape(dims))) return x;
    return broadcast_to(expand_dims(x, at), Shape(dims));
  }

  Tensor reduced(const Tensor& x) {
    const Dims axes = some_axes(x.rank());
    const Tensor result = choices_.one_in(3) ? max(x, axes, true) : sum(x, axes, true);
    // Large again, like a normalisation.
    return choices_.one_in(2) ? x - result : result;
  }

  Tensor combined(const Tensor& x) {
    for (std::size_t i = values_.size(); i-- > 0;)
      if (values_[i].shape() == x.shape() && choices_.one_in(2)) return x * floating(values_[i]);
    return x * floating(parameter({x.shape(), DType::f32})) + x;
  }

  Tensor product(const Tensor& x) {
    const std::int64_t inner = x.shape().dims().back(), outer = x.shape().elements() / inner;
    const std::int64_t columns = choices_.between(1, 9);
    if (x.rank() < 1 || !small_enough({outer, columns}) || !small_enough({inner, columns}))
      return x;
    return matmul(reshape(x, {outer, inner}), parameter({{inner, columns}, DType::f32}));
  }

  Tensor indexed(const Tensor& x) {
    const std::int64_t axis = axis_of(x);
    switch (choices_.below(3)) {
      case 0:
        return cumsum(x, axis);
      case 1:
        return x.size(axis) <= std::int64_t{1} << 31 ? argmax(x, axis, true) : x;
      default:
        return take(x, parameter({{choices_.between(1, 3)}, DType::i32}), axis);
    }
  }

  Choices choices_;
  std::int64_t elements_;
  Tensors given_, parameters_, values_;
};

std::int64_t points_of(const Kernel& kernel) {
  std::int64_t points = 1;
  if (const auto* tape = std::get_if<TapeKernel>(&kernel))
    for (const std::int64_t extent : tape->tape.extents) points *= extent;
  return points;
}

}  // namespace

std::int64_t mixed_scale(std::uint64_t number) {
  const std::uint64_t kind = number % 10;
  return std::int64_t{1} << (kind < 7 ? 20 : kind < 9 ? 31 : 32);
}

LargePlan plan_large_program(std::uint64_t seed, std::uint64_t number, std::int64_t elements,
                             const Capabilities& device) {
  const std::uint64_t own = seed * 1'000'003 + number;
  LargeDrawing drawing(own, elements);
  Tensors values = drawing.draw(), parameters = drawing.parameters();
  const bool with_derivative = number % 3 == 0 && is_floating(values.back().dtype());
  LargePlan result;
  const auto planned = [&](std::span<const Tensor> outputs) {
    const plan::Canonical canonical = plan::canonicalise(parameters, outputs);
    return plan::make_plan(canonical.graph, device).program;
  };
  try {
    Tensors outputs{values.back()};
    if (values.size() > 4) outputs.push_back(values[values.size() / 2]);
    if (with_derivative) {
      const Leaves traced(parameters);
      const Tensor moving = LargeDrawing(own, elements, traced.tensors()).draw().back();
      parameters.push_back(make_leaf(Op::parameter,
                                     IndexAttributes{static_cast<std::int64_t>(parameters.size())},
                                     moving.type(), moving.device()));
      for (const Tensor& gradient : traced.linear_map({moving}).transpose({parameters.back()}))
        if (gradient) outputs.push_back(gradient), values.push_back(gradient);
    }
    const Program program = planned(outputs);
    verify(program);
    for (const Kernel& kernel : program.kernels) {
      if (const Fit fit = fits(kernel, program.buffers, device.limits); !fit)
        throw Error("a kernel does not fit: " + fluxion::to_string(fit));
      result.points = std::max(result.points, points_of(kernel));
    }
    result.kernels = program.kernels.size();
  } catch (const std::exception& error) {
    result.failure = error.what();
    // The first value that fails by itself says it with the fewest ops.
    for (const Tensor& value : values) {
      try {
        planned(std::span(&value, 1));
      } catch (const std::exception&) {
        result.graph = plan::to_string(plan::canonicalise(parameters, std::span(&value, 1)).graph);
        break;
      }
    }
  }
  return result;
}

}  // namespace fluxion::testing
