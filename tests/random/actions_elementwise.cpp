// Elementwise actions: functions of one operand, of two, comparisons, whole numbers, bits.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/op_examples.h"
#include "tests/random/actions.h"

namespace fluxion::testing {

namespace {

using Draw = std::function<double(Drawing&, Step&)>;

// One floating operand of at most `limit`; the result is at most `bound`, or as large as the
// operand times -bound.
Draw one_operand(double limit, double bound, std::int64_t ways = 1) {
  return [=](Drawing& drawing, Step& step) {
    step.operands = {drawing.floating(limit)};
    step.numbers = {drawing.choices.below(ways)};
    return bound >= 0 ? bound : -bound * drawing.bound(step.operands[0]);
  };
}

// Two floating operands. The second takes the shape of the first with some axes at 1 and perhaps
// without leading axes, so that it broadcasts.
Draw two_operands(double first, double second, std::function<double(double, double)> bound,
                  std::int64_t ways = 1) {
  return [=, bound = std::move(bound)](Drawing& drawing, Step& step) {
    step.operands = {drawing.floating(first), drawing.floating(second)};
    step.shape = drawing.tensor(step.operands[0]).shape().dims();
    if (drawing.choices.one_in(3)) {
      for (std::int64_t& size : step.shape)
        if (drawing.choices.one_in(2)) size = 1;
      if (!step.shape.empty() && drawing.choices.one_in(3)) step.shape.erase(step.shape.begin());
    }
    step.numbers = {drawing.choices.below(ways), drawing.choices.below(2)};
    return bound(drawing.bound(step.operands[0]), drawing.bound(step.operands[1]));
  };
}

Tensor second(const Scope& scope) { return scope.fitted(1, Shape(scope.step.shape)); }

double larger(double a, double b) { return std::max(a, b); }

void add_unary(std::vector<Action>& table) {
  const auto node = [&](Op op, double limit, double bound) {
    table.push_back(
        {std::string(to_string(op)), one_operand(limit, bound),
         [op](const Scope& scope) { return make_nodes(op, NoAttributes{}, {scope.in[0]}); }});
  };
  for (const Op op : {Op::identity, Op::neg}) node(op, 3, -1);
  for (const Op op : {Op::sin, Op::cos, Op::tanh, Op::sigmoid, Op::sigmoid_slope, Op::erf})
    node(op, 3, 1);
  node(Op::erfc, 3, 2);
  for (const Op op : {Op::exp, Op::expm1}) node(op, 1.5, 4.5);
  for (const auto& [op, bound] :
       {std::pair{Op::log, 2.3}, {Op::log1p, 2.5}, {Op::sqrt, 3.2}, {Op::rsqrt, 2.1}})
    table.push_back(
        {std::string(to_string(op)), one_operand(3, bound, 5), [op = op](const Scope& scope) {
           return make_nodes(op, NoAttributes{}, {positive(scope.in[0], scope.number(0))});
         }});
  for (const Op op : {Op::abs, Op::sign})
    table.push_back({std::string(to_string(op)), one_operand(3, op == Op::abs ? -1 : 1),
                     [op](const Scope& scope) {
                       scope.margin(abs(scope.in[0]));
                       return make_nodes(op, NoAttributes{}, {scope.in[0]});
                     }});
  table.push_back({"floor", one_operand(3, 9), [](const Scope& scope) -> Tensors {
                     const Tensor x = scope.in[0] * 2.0 + 0.3, below = floor(x);
                     scope.margin(minimum(x - below, below + 1.0 - x));
                     return {below};
                   }});
  // Composites of engine/graph/ops.h.
  table.push_back({"composite", one_operand(3, 9, 7), [](const Scope& scope) -> Tensors {
                     const Tensor& x = scope.in[0];
                     switch (scope.number(0)) {
                       case 0:
                         return {silu(x)};
                       case 1:
                         return {softplus(x)};
                       case 2:
                         return {gelu_tanh(x)};
                       case 3:
                         return {gelu_erf(x)};
                       case 4:
                         return {square(x)};
                       case 5:
                         return {reciprocal(positive(x, 0))};
                       default:
                         scope.margin(abs(x));
                         return {relu(x)};
                     }
                   }});
  // How a large value comes back into [-1, 1]; drawn where it is needed.
  table.push_back({"squash", one_operand(3, 1),
                   [](const Scope& scope) -> Tensors {
                     const Tensor& x = scope.in[0];
                     switch (scope.number(0)) {
                       case 0:
                         return {tanh(x)};
                       case 1:
                         return {sin(x)};
                       case 2:
                         return {erf(0.5 * x)};
                       case 3:
                         return {sigmoid(x)};
                       default:
                         return {x * (1024.0 / static_cast<double>(scope.number(1)))};
                     }
                   },
                   0});
  table.push_back({"stop_gradient", one_operand(3, -1),
                   [](const Scope& scope) -> Tensors {
                     if (scope.options.held) return {(*scope.options.held)[(*scope.held)++]};
                     if (scope.options.stopped) scope.options.stopped->push_back(scope.in[0]);
                     return {stop_gradient(scope.in[0])};
                   },
                   1});
  table.push_back({"after", two_operands(3, 3, [](double a, double) { return a; }),
                   [](const Scope& scope) -> Tensors {
                     return {make_node(Op::after, NoAttributes{}, {scope.in[0], scope.in[1]})};
                   }});
  // A conversion that changes nothing is a node all the same, with a rule and a transpose.
  table.push_back(
      {"convert", one_operand(3, -1), [](const Scope& scope) -> Tensors {
         return {make_node(Op::convert, DTypeAttributes{scope.in[0].dtype()}, {scope.in[0]})};
       }});
}

void add_binary(std::vector<Action>& table) {
  const auto sum = [](double a, double b) { return a + b; };
  const auto product = [](double a, double b) { return a * b; };
  table.push_back({"add", two_operands(3, 3, sum),
                   [](const Scope& scope) -> Tensors { return {scope.in[0] + second(scope)}; }, 3});
  table.push_back({"sub", two_operands(3, 3, sum), [](const Scope& scope) -> Tensors {
                     // Either way round.
                     return {scope.number(1) ? scope.in[0] - second(scope)
                                             : second(scope) - scope.in[0]};
                   }});
  table.push_back({"mul", two_operands(3, 3, product),
                   [](const Scope& scope) -> Tensors { return {scope.in[0] * second(scope)}; }, 4});
  table.push_back({"div",
                   two_operands(
                       3, 3, [](double a, double) { return 4 * a; }, 5),
                   [](const Scope& scope) -> Tensors {
                     return {scope.in[0] / positive(second(scope), scope.number(0))};
                   }});
  table.push_back({"pow",
                   two_operands(
                       1, 2, [](double, double) { return 11; }, 5),
                   [](const Scope& scope) -> Tensors {
                     return {pow(positive(scope.in[0], scope.number(0)), second(scope))};
                   }});
  table.push_back({"atan2",
                   two_operands(
                       3, 3, [](double, double) { return 3.2; }, 5),
                   [](const Scope& scope) -> Tensors {
                     // In the right or in the upper half plane, clear of the cut.
                     const Tensor p = positive(second(scope), scope.number(0));
                     return {scope.number(1) ? atan2(scope.in[0], p) : atan2(p, scope.in[0])};
                   }});
  for (const Op op : {Op::maximum, Op::minimum})
    table.push_back({std::string(to_string(op)), two_operands(3, 3, larger),
                     [op](const Scope& scope) -> Tensors {
                       const Tensor a = scope.in[0], b = second(scope) + 0.125;
                       scope.margin(abs(a - b));
                       return {op == Op::maximum ? maximum(a, b) : minimum(a, b)};
                     }});
  using Compare = Tensor (*)(const Operand&, const Operand&);
  for (const auto& [name, compare] : std::initializer_list<std::pair<const char*, Compare>>{
           {"lt", lt}, {"le", le}, {"gt", gt}, {"ge", ge}, {"eq", eq}, {"ne", ne}})
    table.push_back({name, two_operands(3, 3, larger),
                     [compare = compare](const Scope& scope) -> Tensors {
                       const Tensor a = scope.in[0], b = second(scope) + 0.0625;
                       scope.margin(abs(a - b));
                       return {compare(a, b)};
                     },
                     1});
  table.push_back({"where",
                   [](Drawing& drawing, Step& step) {
                     const int condition = drawing.boolean();
                     step.operands = {condition, drawing.floating(), drawing.floating()};
                     step.shape = drawing.tensor(step.operands[1]).shape().dims();
                     return larger(drawing.bound(step.operands[1]),
                                   drawing.bound(step.operands[2]));
                   },
                   [](const Scope& scope) -> Tensors {
                     const Shape shape(scope.step.shape);
                     return {where(scope.fitted(0, shape), scope.in[1], scope.fitted(2, shape))};
                   },
                   4});
}

// Whole numbers stay in [-9, 9].
Tensor clamped(const Tensor& x) { return minimum(maximum(x, -9.0), 9.0); }

void add_discrete(std::vector<Action>& table) {
  table.push_back({"whole", one_operand(3, 0), [](const Scope& scope) -> Tensors {
                     const Tensor x = scope.in[0] * 2.0 + 0.4;
                     scope.margin(abs(x - floor(x + 0.5)));
                     return {convert(x, DType::i32)};
                   }});
  constexpr std::int64_t kinds = 18;
  table.push_back({"integers",
                   [](Drawing& drawing, Step& step) {
                     const int a = drawing.integer();
                     step.operands = {a, drawing.integer()};
                     step.numbers = {drawing.choices.below(kinds), drawing.choices.below(4)};
                     return 0.0;
                   },
                   [](const Scope& scope) -> Tensors {
                     const Tensor &a = scope.in[0], b = scope.fitted(1, a.shape());
                     const std::int64_t axis = a.rank() ? scope.number(1) % a.rank() : 0;
                     const Dims axes = a.rank() ? Dims{axis} : Dims{};
                     switch (scope.number(0)) {
                       case 0:
                         return {clamped(a + b)};
                       case 1:
                         return {clamped(a - b)};
                       case 2:
                         return {clamped(a * b)};
                       case 3:
                         return {maximum(a, b)};
                       case 4:
                         return {minimum(a, b)};
                       case 5:
                         return {abs(a)};
                       case 6:
                         return {sign(a)};
                       case 7:
                         return {-a};
                       case 8:
                         return {clamped(sum(a, axes, true))};
                       case 9:
                         return {clamped(max(a, axes, true))};
                       case 10:
                         return {clamped(min(a, axes, true))};
                       case 11:
                         return {a.rank() ? clamped(cumsum(a, axis)) : a};
                       case 12:
                         return {where(lt(a, b), a, b)};
                       case 13:
                         return {convert(eq(a, b), DType::i32)};
                       case 14:
                         return {where(ge(a, b), make_node(Op::identity, NoAttributes{}, {a}),
                                       stop_gradient(b))};
                       case 15:
                         if (a.rank() == 0) return {a};
                         return {where(ne(a, b), iota(a.shape(), axis, DType::i32, a.device()), b)};
                       case 16:
                         return {where(le(a, b), a, 2.0)};
                       default:
                         return {where(gt(a, b), 0.0, b)};
                     }
                   },
                   6});
  table.push_back(
      {"number of boolean",
       [](Drawing& drawing, Step& step) {
         step.operands = {drawing.boolean()};
         return 1.0;
       },
       [](const Scope& scope) -> Tensors { return {convert(scope.in[0], scope.floating())}; }});
  table.push_back({"number of integer",
                   [](Drawing& drawing, Step& step) {
                     step.operands = {drawing.integer()};
                     return 3.0;
                   },
                   [](const Scope& scope) -> Tensors {
                     return {convert(clamped(scope.in[0]), scope.floating()) * 0.3};
                   }});
  table.push_back(
      {"random_bits",
       [](Drawing& drawing, Step& step) {
         const int key = drawing.key();
         if (key < 0) return -1.0;
         step.operands = {key};
         step.shape = drawing.dims();
         step.numbers = {drawing.choices.below(1000)};
         return 0.0;
       },
       [](const Scope& scope) -> Tensors {
         return {random_bits(fold_in(scope.in[0], static_cast<std::uint32_t>(scope.number(0))),
                             Shape(scope.step.shape))};
       },
       3});
  table.push_back({"shift_right",
                   [](Drawing& drawing, Step& step) {
                     const int bits = drawing.bits();
                     if (bits < 0) return -1.0;
                     step.operands = {bits};
                     step.numbers = {drawing.choices.below(32)};
                     return 0.0;
                   },
                   [](const Scope& scope) -> Tensors {
                     return {shift_right(scope.in[0], static_cast<double>(scope.number(0)))};
                   },
                   3});
  table.push_back({"number of bits",
                   [](Drawing& drawing, Step& step) {
                     const int bits = drawing.bits();
                     if (bits < 0) return -1.0;
                     step.operands = {bits};
                     return 1.0;
                   },
                   [](const Scope& scope) -> Tensors {
                     // 24 bits: f32 holds them.
                     return {convert(shift_right(scope.in[0], 8.0), scope.floating()) *
                             std::ldexp(1.0, -24)};
                   },
                   3});
}

// What no entry above names: on positive operands, where it is smooth, and squashed.
void add_others(std::vector<Action>& table) {
  for (int i = 0; i < op_count; ++i) {
    const auto op = static_cast<Op>(i);
    const std::string name(to_string(op));
    const bool is_named = std::any_of(table.begin(), table.end(),
                                      [&](const Action& action) { return action.name == name; });
    if (info(op).op_class != OpClass::elementwise || !has_derivative(op) || is_named) continue;
    const bool unary = info(op).inputs == 1;
    table.push_back({name,
                     unary ? one_operand(3, 1, 5)
                           : two_operands(
                                 3, 3, [](double, double) { return 1; }, 5),
                     [op, unary](const Scope& scope) -> Tensors {
                       Tensors operands = {positive(scope.in[0], scope.number(0))};
                       if (!unary)
                         operands.push_back(broadcast_to(positive(second(scope), scope.number(0)),
                                                         operands[0].shape()));
                       return {tanh(make_node(op, NoAttributes{}, operands))};
                     }});
  }
}

}  // namespace

void add_elementwise_actions(std::vector<Action>& table) {
  add_unary(table);
  add_binary(table);
  add_discrete(table);
  add_others(table);
}

}  // namespace fluxion::testing
