#include "models/layers/order.h"

#include <algorithm>

#include "engine/graph/op_names.h"

namespace fluxion {
namespace {

std::int64_t checked_axis(const char* function, const Tensor& x, std::int64_t axis,
                          Location where) {
  require_tensor(x, function, "x", where);
  const std::int64_t result = axis < 0 ? axis + x.rank() : axis;
  if (result < 0 || result >= x.rank())
    throw ShapeError(std::string(function) + " (" + to_string(where) + "): " + to_string(x.type()) +
                     " has no axis " + std::to_string(axis));
  return result;
}

// Product over one axis, kept with size 1.
Tensor prod_axis(Tensor x, std::int64_t axis, Location where) {
  if (x.size(axis) == 0) {
    Shape shape = x.shape();
    shape[axis] = 1;
    return full(shape, 1, x.dtype(), x.device());
  }
  while (x.size(axis) > 1) {
    const std::int64_t size = x.size(axis), half = size / 2;
    const Tensor paired =
        slice_axis(x, axis, 0, half, where) * slice_axis(x, axis, half, 2 * half, where);
    x = size % 2 == 0 ? paired
                      : concat({paired, slice_axis(x, axis, size - 1, size, where)}, axis, where);
  }
  return x;
}

}  // namespace

Tensor argsort(const Tensor& x, std::int64_t axis, bool descending, Location where) {
  return make_node(Op::argsort, SortAttributes{checked_axis("argsort", x, axis, where), descending},
                   {x}, where);
}

Tensor sort(const Tensor& x, std::int64_t axis, bool descending, Location where) {
  axis = checked_axis("sort", x, axis, where);
  return take_along_axis(x, argsort(x, axis, descending, where), axis, where);
}

TopK topk(const Tensor& x, std::int64_t k, std::int64_t axis, Location where) {
  axis = checked_axis("topk", x, axis, where);
  if (k < 0 || k > x.size(axis))
    throw ShapeError("topk (" + to_string(where) + "): " + std::to_string(k) +
                     " values of an axis of " + to_string(x.type()));
  const Tensor indices = slice_axis(argsort(x, axis, true, where), axis, 0, k, where);
  return {take_along_axis(x, indices, axis, where), indices};
}

Tensor prod(const Tensor& x, const Dims& axes, bool keepdims, Location where) {
  require_tensor(x, "prod", "x", where);
  Dims reduced;
  for (const std::int64_t axis : axes) reduced.push_back(checked_axis("prod", x, axis, where));
  if (axes.empty())
    for (std::int64_t axis = 0; axis < x.rank(); ++axis) reduced.push_back(axis);
  Tensor result = x;
  for (const std::int64_t axis : reduced) result = prod_axis(result, axis, where);
  if (keepdims) return result;
  Dims shape;
  for (std::int64_t axis = 0; axis < x.rank(); ++axis)
    if (std::find(reduced.begin(), reduced.end(), axis) == reduced.end())
      shape.push_back(x.size(axis));
  return reshape(result, Shape(std::move(shape)), where);
}

Tensor cumprod(const Tensor& x, std::int64_t axis, Location where) {
  axis = checked_axis("cumprod", x, axis, where);
  // Before each round, y[i] is the product of the `count` elements up to i; y[i] y[i - count] is
  // that of twice as many.
  Tensor y = x;
  for (std::int64_t count = 1; count < x.size(axis); count *= 2) {
    Dims low(static_cast<std::size_t>(x.rank()), 0), high = low;
    low[static_cast<std::size_t>(axis)] = count;
    y = y * pad(slice_axis(y, axis, 0, x.size(axis) - count, where), low, high, 1, where);
  }
  return y;
}

}  // namespace fluxion
