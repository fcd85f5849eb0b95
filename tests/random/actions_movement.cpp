// Movement, reductions and contractions.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/random/actions.h"

namespace fluxion::testing {

namespace {

// Mostly a floating value; now and then one of another kind, for movement does not care.
int anything(Drawing& drawing) {
  if (drawing.choices.one_in(8)) return drawing.boolean();
  if (drawing.choices.one_in(8)) return drawing.integer();
  return drawing.floating();
}

void add_views(std::vector<Action>& table) {
  table.push_back({"reshape",
                   [](Drawing& drawing, Step& step) {
                     const int value = anything(drawing);
                     step.operands = {value};
                     std::int64_t rest = drawing.tensor(value).elements();
                     // Factors one by one, and sizes of 1 between.
                     while (rest > 1) {
                       std::vector<std::int64_t> divisors;
                       for (std::int64_t d = 2; d <= rest; ++d)
                         if (rest % d == 0) divisors.push_back(d);
                       if (drawing.choices.one_in(4)) step.shape.push_back(1);
                       step.shape.push_back(step.shape.size() >= 3
                                                ? rest
                                                : drawing.choices.any<std::int64_t>(divisors));
                       rest /= step.shape.back();
                     }
                     if (rest == 0) step.shape = {0, drawing.choices.between(1, 3)};
                     return drawing.bound(value);
                   },
                   [](const Scope& scope) -> Tensors {
                     return {reshape(scope.in[0], Shape(scope.step.shape))};
                   }});
  table.push_back(
      {"transpose",
       [](Drawing& drawing, Step& step) {
         const int value = anything(drawing);
         step.operands = {value};
         step.numbers.resize(static_cast<std::size_t>(drawing.tensor(value).rank()));
         std::iota(step.numbers.begin(), step.numbers.end(), 0);
         for (std::size_t i = step.numbers.size(); i > 1; --i)
           std::swap(step.numbers[i - 1],
                     step.numbers[static_cast<std::size_t>(
                         drawing.choices.below(static_cast<std::int64_t>(i)))]);
         return drawing.bound(value);
       },
       [](const Scope& scope) -> Tensors { return {transpose(scope.in[0], scope.step.numbers)}; },
       3});
  table.push_back({"broadcast_to",
                   [](Drawing& drawing, Step& step) {
                     const int value = anything(drawing);
                     step.operands = {value};
                     const Tensor& x = drawing.tensor(value);
                     step.shape = x.shape().dims();
                     for (std::int64_t& size : step.shape)
                       if (size == 1 && x.elements() <= 24) size = drawing.choices.between(1, 3);
                     if (x.rank() < 4 && x.elements() <= 24)
                       step.shape.insert(step.shape.begin(), drawing.choices.between(1, 3));
                     return drawing.bound(value);
                   },
                   [](const Scope& scope) -> Tensors {
                     return {broadcast_to(scope.in[0], Shape(scope.step.shape))};
                   }});
  table.push_back({"slice",
                   [](Drawing& drawing, Step& step) {
                     const int value = anything(drawing);
                     step.operands = {value};
                     // start, stop, step of each axis
                     for (const std::int64_t size : drawing.tensor(value).shape()) {
                       const std::int64_t start = size > 0 ? drawing.choices.below(size) : 0;
                       const bool empty = drawing.choices.one_in(150);
                       step.numbers.push_back(start);
                       step.numbers.push_back(
                           empty || size == 0 ? start : drawing.choices.between(start + 1, size));
                       step.numbers.push_back(drawing.choices.between(1, 3));
                     }
                     return drawing.bound(value);
                   },
                   [](const Scope& scope) -> Tensors {
                     Dims start, stop, step;
                     for (std::size_t i = 0; i < scope.step.numbers.size(); i += 3) {
                       start.push_back(scope.number(i)), stop.push_back(scope.number(i + 1)),
                           step.push_back(scope.number(i + 2));
                     }
                     return {slice(scope.in[0], start, stop, step)};
                   }});
  table.push_back({"pad",
                   [](Drawing& drawing, Step& step) {
                     const int value = anything(drawing);
                     step.operands = {value};
                     for (std::int64_t i = 0; i < 2 * drawing.tensor(value).rank(); ++i)
                       step.numbers.push_back(
                           std::max<std::int64_t>(0, drawing.choices.between(-2, 2)));
                     step.numbers.push_back(drawing.choices.below(3));
                     return std::max(drawing.bound(value), 1.0);
                   },
                   [](const Scope& scope) -> Tensors {
                     Dims low, high;
                     for (std::size_t i = 0; i + 1 < scope.step.numbers.size(); i += 2)
                       low.push_back(scope.number(i)), high.push_back(scope.number(i + 1));
                     // With 0, 1 and - floating values alone - a half.
                     const double with = static_cast<double>(scope.step.numbers.back());
                     return {pad(scope.in[0], low, high,
                                 with < 2                           ? with
                                 : is_floating(scope.in[0].dtype()) ? 0.5
                                                                    : 0.0)};
                   }});
  table.push_back({"concat",
                   [](Drawing& drawing, Step& step) {
                     const std::int64_t parts = drawing.choices.between(1, 3);
                     double bound = 0;
                     for (std::int64_t i = 0; i < parts; ++i) {
                       step.operands.push_back(drawing.floating());
                       bound = std::max(bound, drawing.bound(step.operands.back()));
                     }
                     step.shape = drawing.tensor(step.operands[0]).shape().dims();
                     if (step.shape.empty()) step.shape = {1};
                     step.numbers = {
                         drawing.choices.below(static_cast<std::int64_t>(step.shape.size()))};
                     for (std::int64_t i = 0; i < parts; ++i)
                       step.numbers.push_back(drawing.choices.between(1, 3));
                     return bound;
                   },
                   [](const Scope& scope) -> Tensors {
                     // Each part has a length of its own along the axis.
                     const std::int64_t axis = scope.number(0);
                     Tensors parts{fit(scope.in[0], Shape(scope.step.shape))};
                     for (std::size_t i = 1; i < scope.in.size(); ++i) {
                       Shape shape(scope.step.shape);
                       shape[axis] = scope.number(i + 1);
                       parts.push_back(scope.fitted(i, shape));
                     }
                     return {concat(parts, axis)};
                   },
                   3});
  table.push_back({"join",
                   [](Drawing& drawing, Step& step) {
                     step.operands = {drawing.floating(), drawing.floating()};
                     return 3.0;
                   },
                   [](const Scope& scope) -> Tensors {
                     Tensors parts;
                     for (const Tensor& x : scope.in) parts.push_back(reshape(x, {x.elements()}));
                     return {concat(parts, 0)};
                   },
                   1});
  table.push_back(
      {"flip",
       [](Drawing& drawing, Step& step) {
         const int value = anything(drawing);
         step.operands = {value};
         for (std::int64_t axis = 0; axis < drawing.tensor(value).rank(); ++axis)
           if (drawing.choices.one_in(2)) step.numbers.push_back(axis);
         return drawing.bound(value);
       },
       [](const Scope& scope) -> Tensors { return {flip(scope.in[0], scope.step.numbers)}; }});
  // Images [n, h, w, c]; kernel, stride and dilation of height and width.
  table.push_back(
      {"windows",
       [](Drawing& drawing, Step& step) {
         const int value = drawing.floating();
         step.operands = {value};
         step.shape = {drawing.choices.between(1, 2), drawing.choices.between(2, 5),
                       drawing.choices.between(2, 5), drawing.choices.between(1, 2)};
         for (int k = 0; k < 2; ++k) step.numbers.push_back(drawing.choices.between(1, 2));
         for (int k = 0; k < 2; ++k) step.numbers.push_back(drawing.choices.between(1, 3));
         for (std::size_t k = 0; k < 2; ++k)  // the second element lies inside
           step.numbers.push_back(step.numbers[k] == 1
                                      ? drawing.choices.between(1, 3)
                                      : drawing.choices.between(1, step.shape[k + 1] - 1));
         return drawing.bound(value);
       },
       [](const Scope& scope) -> Tensors {
         const WindowAttributes attributes{{scope.number(0), scope.number(1)},
                                           {scope.number(2), scope.number(3)},
                                           {scope.number(4), scope.number(5)}};
         return make_nodes(Op::windows, attributes, {scope.fitted(0, Shape(scope.step.shape))});
       }});
  table.push_back({"iota",
                   [](Drawing& drawing, Step& step) {
                     const int value = drawing.floating();
                     step.operands = {value};
                     const std::int64_t rank = drawing.tensor(value).rank();
                     if (rank == 0) return -1.0;
                     step.numbers = {drawing.choices.below(rank)};
                     return drawing.bound(value) + 2;
                   },
                   [](const Scope& scope) -> Tensors {
                     const Tensor& x = scope.in[0];
                     const std::int64_t axis = scope.number(0);
                     return {x + iota(x.shape(), axis, x.dtype(), x.device()) *
                                     (2.0 / static_cast<double>(1 + x.size(axis)))};
                   }});
}

// Numbers: whether to keep the axes, then the axes.
double draw_axes(Drawing& drawing, Step& step) {
  const int value = drawing.floating();
  step.operands = {value};
  step.numbers = {drawing.choices.below(2)};
  const Shape& shape = drawing.tensor(value).shape();
  for (std::int64_t axis = 0; axis < shape.rank(); ++axis)
    if (drawing.choices.one_in(2)) step.numbers.push_back(axis);
  return drawing.bound(value);
}
Dims drawn_axes(const Scope& scope) {
  return {scope.step.numbers.begin() + 1, scope.step.numbers.end()};
}

double elements_over(const Drawing& drawing, const Step& step) {
  double count = 1;
  const Shape& shape = drawing.tensor(step.operands[0]).shape();
  if (step.numbers.size() == 1)
    return static_cast<double>(shape.elements());  // no axes: all of them
  for (std::size_t i = 1; i < step.numbers.size(); ++i)
    count *= static_cast<double>(shape[step.numbers[i]]);
  return std::max(count, 1.0);
}

void add_reductions(std::vector<Action>& table) {
  table.push_back({"sum",
                   [](Drawing& drawing, Step& step) {
                     const double bound = draw_axes(drawing, step);
                     return bound * elements_over(drawing, step);
                   },
                   [](const Scope& scope) -> Tensors {
                     return {sum(scope.in[0], drawn_axes(scope), scope.number(0) == 1)};
                   },
                   3});
  table.push_back({"moments",
                   [](Drawing& drawing, Step& step) {
                     const double bound = draw_axes(drawing, step);
                     if (elements_over(drawing, step) == 0 ||
                         drawing.tensor(step.operands[0]).elements() == 0)
                       return -1.0;
                     return bound * bound + bound;
                   },
                   [](const Scope& scope) -> Tensors {
                     const bool keep = scope.number(0) == 1;
                     return {mean(scope.in[0], drawn_axes(scope), keep) +
                             var(scope.in[0], drawn_axes(scope), keep)};
                   },
                   1});
  for (const Op op : {Op::max, Op::min})
    table.push_back({std::string(to_string(op)),
                     [](Drawing& drawing, Step& step) {
                       const double bound = draw_axes(drawing, step);
                       if (drawing.tensor(step.operands[0]).elements() == 0) return -1.0;
                       return bound + 4;
                     },
                     [op](const Scope& scope) -> Tensors {
                       const Dims axes = drawn_axes(scope);
                       const Tensor x = ramped(scope.in[0], -1);
                       const Tensor y = op == Op::max ? max(x, axes, true) : min(x, axes, true);
                       if (scope.options.margins) {
                         // The extremum's lead on all others; itself is at 0.
                         const Tensor lead = abs(x - y);
                         scope.margin(where(gt(lead, 0.0), lead, 1.0));
                         scope.margin(1.0 - (sum(convert(eq(lead, 0.0), x.dtype()), axes, true) -
                                             1.0));  // 0 for a tie
                       }
                       Dims kept;
                       const Dims reduced = axes;
                       for (std::int64_t axis = 0; axis < x.rank(); ++axis)
                         if (!reduced.empty() &&
                             std::find(reduced.begin(), reduced.end(), axis) == reduced.end())
                           kept.push_back(x.size(axis));
                       return {scope.number(0) == 1 ? y : reshape(y, Shape(kept))};
                     }});
  table.push_back({"logsumexp",
                   [](Drawing& drawing, Step& step) {
                     const double bound = draw_axes(drawing, step);
                     if (drawing.tensor(step.operands[0]).elements() == 0) return -1.0;
                     return bound + 4;
                   },
                   [](const Scope& scope) -> Tensors {
                     return {logsumexp(scope.in[0], drawn_axes(scope), scope.number(0) == 1)};
                   },
                   1});
  table.push_back(
      {"cumsum",
       [](Drawing& drawing, Step& step) {
         const int value = drawing.floating();
         step.operands = {value};
         const Tensor& x = drawing.tensor(value);
         if (x.rank() == 0) return -1.0;
         step.numbers = {drawing.choices.below(x.rank())};
         return drawing.bound(value) *
                static_cast<double>(std::max<std::int64_t>(1, x.size(step.numbers[0])));
       },
       [](const Scope& scope) -> Tensors { return {cumsum(scope.in[0], scope.number(0))}; }});
}

// Shape: batch axes, m, k, n. Numbers: operands transposed; a batch axis of b at 1.
void draw_product(Drawing& drawing, Step& step) {
  step.shape = drawing.dims(drawing.choices.below(3));
  for (int k = 0; k < 3; ++k) step.shape.push_back(drawing.choices.between(1, k == 1 ? 5 : 4));
  if (drawing.choices.one_in(150)) step.shape.back() = 0;
  for (int k = 0; k < 3; ++k) step.numbers.push_back(drawing.choices.below(2));
}
double inner_size(const Step& step) {
  return static_cast<double>(step.shape[step.shape.size() - 2]);
}

// The two operands of a drawn product.
std::pair<Tensor, Tensor> factors(const Scope& scope) {
  const Dims batch(scope.step.shape.begin(), scope.step.shape.end() - 3);
  const std::int64_t m = *(scope.step.shape.end() - 3), k = *(scope.step.shape.end() - 2),
                     n = scope.step.shape.back();
  const auto operand = [&](std::size_t i, Dims dims, std::int64_t rows, std::int64_t columns) {
    const bool turned = scope.number(i) == 1;
    dims.push_back(turned ? columns : rows), dims.push_back(turned ? rows : columns);
    const Tensor x = scope.fitted(i, Shape(dims));
    return turned ? swap_axes(x, -1, -2) : x;
  };
  Dims other = batch;
  if (scope.number(2) == 1 && !other.empty()) other[0] = 1;
  return {operand(0, batch, m, k), operand(1, other, k, n)};
}

void add_contractions(std::vector<Action>& table) {
  table.push_back({"matmul",
                   [](Drawing& drawing, Step& step) {
                     step.operands = {drawing.floating(), drawing.floating()};
                     draw_product(drawing, step);
                     return drawing.bound(step.operands[0]) * drawing.bound(step.operands[1]) *
                            inner_size(step);
                   },
                   [](const Scope& scope) -> Tensors {
                     const auto [a, b] = factors(scope);
                     return {matmul(a, b)};
                   },
                   6});
  // Where the program runs in f32, whole numbers of 16 bits (which hold them exactly, so that the
  // program means the same in f64) on one side or both. Further numbers: whether both; bf16 or f16
  // for each; whether a conversion to f32 stands between; whether the result has 16 bits too.
  table.push_back(
      {"product of 16 bits",
       [](Drawing& drawing, Step& step) {
         const bool both = drawing.choices.one_in(2);
         step.operands = {both ? drawing.boolean() : drawing.floating(), drawing.integer()};
         draw_product(drawing, step);
         step.numbers.push_back(both);
         for (int k = 0; k < 4; ++k) step.numbers.push_back(drawing.choices.below(2));
         constexpr double largest = 5;  // of the whole numbers
         return (both ? 1 : drawing.bound(step.operands[0])) * largest * inner_size(step);
       },
       [](const Scope& scope) -> Tensors {
         auto [a, b] = factors(scope);
         const bool both = scope.number(3) == 1;
         const auto stored = [&](const Tensor& x, std::size_t i) {
           if (scope.floating() != DType::f32) return convert(x, scope.floating());
           const Tensor narrow = convert(x, scope.number(i) ? DType::bf16 : DType::f16);
           return scope.number(6) ? convert(narrow, DType::f32) : narrow;
         };
         if (both) a = stored(a, 4);
         b = stored(clip(b, -5.0, 5.0), 5);
         // Sums of five products of whole numbers up to 5 have 16 bits as well.
         if (!both || !scope.number(7) || scope.floating() != DType::f32) return {matmul(a, b)};
         return {convert(matmul(a, b, scope.number(4) ? DType::bf16 : DType::f16), DType::f32)};
       },
       3});
}

}  // namespace

void add_movement_actions(std::vector<Action>& table) {
  add_views(table);
  add_reductions(table);
  add_contractions(table);
}

}  // namespace fluxion::testing
