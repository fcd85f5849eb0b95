// Actions of the fused ops: softmax, norms, convolution, attention and what is derived from it.
#include <algorithm>
#include <cmath>

#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/random/actions.h"

namespace fluxion::testing {

namespace {

double draw_line(Drawing& drawing, Step& step) {
  step.operands = {drawing.floating()};
  const Tensor& x = drawing.tensor(step.operands[0]);
  if (x.rank() == 0 || x.size(-1) == 0) return -1;
  step.numbers = {drawing.choices.below(x.rank())};
  return x.size(step.numbers[0]) == 0 ? -1 : 1;
}

void add_lines(std::vector<Action>& table) {
  for (const Op op : {Op::softmax, Op::log_softmax})
    table.push_back({std::string(to_string(op)),
                     [op](Drawing& drawing, Step& step) {
                       const double bound = draw_line(drawing, step);
                       return bound < 0 || op == Op::softmax ? bound : 9.0;
                     },
                     [op](const Scope& scope) {
                       return make_nodes(op, AxisAttributes{scope.number(0)}, {scope.in[0]});
                     }});
  // (y, 1 / sqrt(var + 0.1)): rows of one element or of equal ones stay well conditioned.
  for (const Op op : {Op::layer_norm, Op::rms_norm})
    table.push_back({std::string(to_string(op)),
                     [](Drawing& drawing, Step& step) {
                       if (draw_line(drawing, step) < 0) return -1.0;
                       return std::max(3.2, std::sqrt(static_cast<double>(
                                                drawing.tensor(step.operands[0]).size(-1))));
                     },
                     [op](const Scope& scope) {
                       return make_nodes(op, EpsilonAttributes{0.1}, {scope.in[0]});
                     }});
}

// Image [n, h, w, in] and weight [kh, kw, in / groups, out]. Numbers: stride, dilation, spread,
// low, high of height and width, groups, kh, kw, out.
void add_convolution(std::vector<Action>& table) {
  table.push_back(
      {"conv2d",
       [](Drawing& drawing, Step& step) {
         Choices& choices = drawing.choices;
         step.operands = {drawing.floating(), drawing.floating()};
         const std::int64_t groups = choices.one_in(4) ? 2 : 1, per_group = choices.between(1, 2);
         step.shape = {choices.between(1, 2), choices.between(2, 4), choices.between(2, 4),
                       groups * per_group};
         Dims stride, dilation, spread, low, high, kernel;
         for (std::size_t k = 0; k < 2; ++k) {
           stride.push_back(choices.between(1, 2)), dilation.push_back(choices.between(1, 2)),
               spread.push_back(choices.one_in(4) ? 2 : 1);
           kernel.push_back(choices.between(1, 3));
           low.push_back(choices.between(-1, 2));
           const std::int64_t whole = (step.shape[k + 1] - 1) * spread[k] + 1,
                              needed = dilation[k] * (kernel[k] - 1) + 1;
           // Enough behind that the kernel fits.
           high.push_back(std::max<std::int64_t>(choices.between(-1, 2), needed - whole - low[k]));
         }
         for (const Dims* list : {&stride, &dilation, &spread, &low, &high})
           step.numbers.insert(step.numbers.end(), list->begin(), list->end());
         step.numbers.insert(step.numbers.end(),
                             {groups, kernel[0], kernel[1], groups * choices.between(1, 2)});
         return drawing.bound(step.operands[0]) * drawing.bound(step.operands[1]) *
                static_cast<double>(kernel[0] * kernel[1] * per_group);
       },
       [](const Scope& scope) {
         const auto pair = [&](std::size_t i) {
           return Dims{scope.number(2 * i), scope.number(2 * i + 1)};
         };
         ConvAttributes attributes{pair(0), pair(1), pair(2), pair(3), pair(4), scope.number(10)};
         attributes.contract_as(contraction_of(scope.in[0].dtype(), scope.in[1].dtype()));
         const Shape image(scope.step.shape),
             weight{scope.number(11), scope.number(12), image[3] / attributes.groups,
                    scope.number(13)};
         return make_nodes(Op::conv2d, attributes,
                           {scope.fitted(0, image), scope.fitted(1, weight)});
       },
       4});
}

// Shape: batch axes, queries, keys, features. Numbers: causal, masked, scale in quarters.
void draw_attention(Drawing& drawing, Step& step, int operands) {
  for (int i = 0; i < operands; ++i) step.operands.push_back(drawing.floating());
  step.shape = drawing.dims(drawing.choices.below(3));
  for (std::int64_t& size : step.shape) size = std::clamp<std::int64_t>(size, 1, 2);
  for (int k = 0; k < 3; ++k) step.shape.push_back(drawing.choices.between(1, 4));
  step.numbers = {drawing.choices.below(2), drawing.choices.below(2),
                  drawing.choices.between(1, 4)};
  if (step.numbers[1]) step.operands.push_back(drawing.boolean());
}

struct AttentionOperands {
  Shape q, k, scores, rows;
  AttentionAttributes attributes;
  Tensors masked(const Scope& scope, Tensors operands) const {
    // Nothing is wholly hidden, or a row would see nobody.
    if (scope.number(1))
      operands.push_back(
          where(fit(scope.in.back(), scores), zeros_like(fit(scope.in[0], scores)), -1.5));
    return operands;
  }
};

AttentionOperands operands_of(const Scope& scope) {
  const Dims& shape = scope.step.shape;
  const Dims batch(shape.begin(), shape.end() - 3);
  const std::int64_t queries = *(shape.end() - 3), keys = *(shape.end() - 2),
                     features = shape.back();
  const auto of = [&](std::initializer_list<std::int64_t> rest) {
    Dims dims = batch;
    dims.insert(dims.end(), rest);
    return Shape(dims);
  };
  return {of({queries, features}),
          of({keys, features}),
          of({queries, keys}),
          of({queries}),
          {static_cast<double>(scope.number(2)) / 4, scope.number(0) == 1}};
}

void add_attention(std::vector<Action>& table) {
  table.push_back({"attention",
                   [](Drawing& drawing, Step& step) {
                     draw_attention(drawing, step, 3);
                     return 40.0;  // the log of the row sums: 9 d + log keys
                   },
                   [](const Scope& scope) {
                     const AttentionOperands o = operands_of(scope);
                     return make_nodes(Op::attention, o.attributes,
                                       o.masked(scope, {scope.fitted(0, o.q), scope.fitted(1, o.k),
                                                        scope.fitted(2, o.k)}));
                   },
                   5});
  table.push_back(
      {"attention_dual",
       [](Drawing& drawing, Step& step) {
         draw_attention(drawing, step, 6);
         return 200.0;
       },
       [](const Scope& scope) {
         const AttentionOperands o = operands_of(scope);
         return make_nodes(
             Op::attention_dual, o.attributes,
             o.masked(scope, {scope.fitted(0, o.q), scope.fitted(1, o.k), scope.fitted(2, o.k),
                              scope.fitted(3, o.q), scope.fitted(4, o.k), scope.fitted(5, o.k)}));
       },
       1});
  table.push_back({"attention_backward",
                   [](Drawing& drawing, Step& step) {
                     draw_attention(drawing, step, 5);
                     return 200.0;
                   },
                   [](const Scope& scope) {
                     const AttentionOperands o = operands_of(scope);
                     return make_nodes(Op::attention_backward, o.attributes,
                                       o.masked(scope, {scope.fitted(0, o.q), scope.fitted(1, o.k),
                                                        scope.fitted(2, o.k), scope.fitted(4, o.q),
                                                        scope.fitted(3, o.rows)}));
                   },
                   1});
}

}  // namespace

void add_fused_actions(std::vector<Action>& table) {
  add_lines(table);
  add_convolution(table);
  add_attention(table);
}

}  // namespace fluxion::testing
