// Actions whose positions come from data: sorting, gathering, adding into places.
#include <algorithm>

#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/random/actions.h"

namespace fluxion::testing {

namespace {

// Indices into an axis: an i32 value of any shape and content, brought to this shape and into
// range.
Tensor indices(const Scope& scope, std::size_t i, const Shape& shape, std::int64_t size) {
  return minimum(abs(scope.fitted(i, shape)), static_cast<double>(size - 1));
}

// A floating operand with axes, none empty, and one of its axes in numbers[0].
double draw_axis(Drawing& drawing, Step& step) {
  const int value = drawing.floating();
  step.operands = {value};
  const Tensor& x = drawing.tensor(value);
  step.shape = x.rank() == 0 ? Dims{1} : x.shape().dims();
  if (x.elements() == 0) return -1;
  step.numbers = {drawing.choices.below(static_cast<std::int64_t>(step.shape.size()))};
  return drawing.bound(value);
}

// The smallest distance between two elements of a line along the axis.
void margin_along(const Scope& scope, const Tensor& x, std::int64_t axis) {
  if (!scope.options.margins) return;
  const Tensor across = expand_dims(x, axis), along = expand_dims(x, axis + 1);
  const Tensor distance = abs(across - along);
  const Tensor same = eq(iota(distance.shape(), axis, DType::i32, x.device()),
                         iota(distance.shape(), axis + 1, DType::i32, x.device()));
  scope.margin(where(same, 1.0, distance));
}

}  // namespace

void add_index_actions(std::vector<Action>& table) {
  const auto bound_of_two = [](Drawing& drawing, const Step& step) {
    return drawing.bound(step.operands[0]) + 3 * 5;
  };
  table.push_back(
      {"take",
       [](Drawing& drawing, Step& step) {
         const double bound = draw_axis(drawing, step);
         if (bound < 0) return bound;
         step.operands.push_back(drawing.integer());
         // The indices' shape.
         for (const std::int64_t size : drawing.dims(drawing.choices.below(3)))
           step.numbers.push_back(std::min<std::int64_t>(size, 3));
         return bound;
       },
       [](const Scope& scope) -> Tensors {
         const Shape shape(scope.step.shape);
         const std::int64_t axis = scope.number(0);
         const Shape places(Dims(scope.step.numbers.begin() + 1, scope.step.numbers.end()));
         return {take(scope.fitted(0, shape), indices(scope, 1, places, shape[axis]), axis)};
       },
       3});
  table.push_back({"take_along_axis",
                   [](Drawing& drawing, Step& step) {
                     const double bound = draw_axis(drawing, step);
                     if (bound < 0) return bound;
                     step.operands.push_back(drawing.integer());
                     step.numbers.push_back(drawing.choices.between(1, 4));
                     return bound;
                   },
                   [](const Scope& scope) -> Tensors {
                     const Shape shape(scope.step.shape);
                     const std::int64_t axis = scope.number(0);
                     Shape places = shape;
                     places[axis] = scope.number(1);
                     return {take_along_axis(scope.fitted(0, shape),
                                             indices(scope, 1, places, shape[axis]), axis)};
                   },
                   3});
  table.push_back({"index_add",
                   [=](Drawing& drawing, Step& step) {
                     if (draw_axis(drawing, step) < 0) return -1.0;
                     const int places = drawing.integer();
                     step.operands.insert(step.operands.end(), {places, drawing.floating()});
                     step.numbers.push_back(drawing.choices.between(1, 5));
                     return bound_of_two(drawing, step);
                   },
                   [](const Scope& scope) -> Tensors {
                     const Shape shape(scope.step.shape);
                     const std::int64_t axis = scope.number(0), count = scope.number(1);
                     Shape updates = shape;
                     updates[axis] = count;
                     return {index_add(scope.fitted(0, shape),
                                       indices(scope, 1, {count}, shape[axis]),
                                       scope.fitted(2, updates), axis)};
                   },
                   3});
  table.push_back({"scatter_add",
                   [=](Drawing& drawing, Step& step) {
                     if (draw_axis(drawing, step) < 0) return -1.0;
                     const int places = drawing.integer();
                     step.operands.insert(step.operands.end(), {places, drawing.floating()});
                     step.numbers.push_back(drawing.choices.between(1, 5));
                     return bound_of_two(drawing, step);
                   },
                   [](const Scope& scope) -> Tensors {
                     const Shape shape(scope.step.shape);
                     const std::int64_t axis = scope.number(0);
                     Shape updates = shape;
                     updates[axis] = scope.number(1);
                     return {scatter_add(scope.fitted(0, shape),
                                         indices(scope, 1, updates, shape[axis]),
                                         scope.fitted(2, updates), axis)};
                   },
                   3});
  table.push_back({"argmax", draw_axis,
                   [](const Scope& scope) -> Tensors {
                     const std::int64_t axis = scope.number(0);
                     const Tensor x = ramped(scope.fitted(0, Shape(scope.step.shape)), axis);
                     margin_along(scope, x, axis);
                     return {argmax(x, axis)};
                   },
                   2});
  // Positions in order, and the values in that order.
  table.push_back({"sort",
                   [](Drawing& drawing, Step& step) {
                     const double bound = draw_axis(drawing, step);
                     step.numbers.push_back(drawing.choices.below(2));
                     return bound < 0 ? bound : bound + 4;
                   },
                   [](const Scope& scope) -> Tensors {
                     const std::int64_t axis = scope.number(0);
                     const Tensor x = ramped(scope.fitted(0, Shape(scope.step.shape)), axis);
                     margin_along(scope, x, axis);
                     const Tensor order =
                         make_node(Op::argsort, SortAttributes{axis, scope.number(1) == 1}, {x});
                     return {order, take_along_axis(x, order, axis)};
                   },
                   4});
}

}  // namespace fluxion::testing
