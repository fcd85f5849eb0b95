// Actions of regions: a few steps of the table as a function with a rule of its own for some
// transform. The rules say what autograd would find by itself, so a region and what it holds must
// agree in every derivative.
#include <algorithm>

#include "autograd/linearize.h"
#include "engine/graph/custom.h"
#include "engine/graph/ops.h"
#include "tests/random/actions.h"

namespace fluxion::testing {

namespace {

// Operands, and a body of a few steps of them. numbers[0]: how many operands are arguments; the
// rest are captured.
double draw_body(Drawing& drawing, Step& step, bool captures) {
  if (drawing.depth >= 2) return -1;
  const std::int64_t operands = drawing.choices.between(1, 3),
                     steps = drawing.choices.between(2, 6);
  for (std::int64_t i = 0; i < operands; ++i) step.operands.push_back(drawing.floating());
  if (drawing.choices.one_in(4))
    step.operands.push_back(drawing.choices.one_in(2) ? drawing.boolean() : drawing.integer());
  std::sort(step.operands.begin(), step.operands.end());
  step.operands.erase(std::unique(step.operands.begin(), step.operands.end()), step.operands.end());
  const auto count = static_cast<std::int64_t>(step.operands.size());
  step.numbers = {captures ? drawing.choices.between(1, count) : count};
  Drawing inner(drawing.choices, drawing.program);
  inner.depth = drawing.depth + 1;
  inner.steps = &step.body;
  for (const int operand : step.operands)
    inner.known.push_back({operand, drawing.tensor(operand), drawing.bound(operand), 0});
  if (std::none_of(inner.known.begin(), inner.known.end(),
                   [](const Known& known) { return known.tensor.dtype() == DType::f64; }))
    return -1;
  for (std::int64_t i = 0; i < steps; ++i) inner.step();
  double bound = 0;
  for (auto known = inner.known.rbegin();
       known != inner.known.rend() && step.body_outputs.size() < 3; ++known) {
    if (known->uses > 0 ||
        std::find(step.operands.begin(), step.operands.end(), known->value) != step.operands.end())
      continue;
    step.body_outputs.push_back(known->value);
    bound = std::max(bound, known->bound);
  }
  return step.body_outputs.empty() ? -1 : bound;
}

// The body as a function of the arguments.
flat::Function body_of(const Scope& scope, const BuildOptions& options, std::size_t* held) {
  const auto count = static_cast<std::size_t>(scope.number(0));
  // Rules outlive this call, so they own what they use.
  return [step = scope.step,
          captured = Tensors(scope.in.begin() + static_cast<std::ptrdiff_t>(count), scope.in.end()),
          count, options, held](const Tensors& arguments) {
    std::map<int, Tensor> values;
    for (std::size_t i = 0; i < step.operands.size(); ++i)
      values[step.operands[i]] = i < count ? arguments[i] : captured[i - count];
    run_steps(step.body, values, options, held);
    Tensors outputs;
    for (const int output : step.body_outputs) outputs.push_back(values.at(output));
    return outputs;
  };
}

Tensors arguments_of(const Scope& scope) {
  return {scope.in.begin(), scope.in.begin() + static_cast<std::ptrdiff_t>(scope.number(0))};
}

template <class Wrap>
std::function<Tensors(const Scope&)> region_of(Wrap wrap) {
  return [wrap](const Scope& scope) {
    if (!scope.options.regions)
      return body_of(scope, scope.options, scope.held)(arguments_of(scope));
    const BuildOptions inside{.floating = scope.options.floating};
    return wrap(body_of(scope, inside, nullptr), arguments_of(scope));
  };
}

Tensors checkpointed(const flat::Function& f, const Tensors& arguments) {
  return flat::checkpoint("random", f, arguments, Location::current());
}

Tensors with_jvp(const flat::Function& f, const Tensors& arguments) {
  const flat::JvpRule rule = [f](const Tensors& primals, const Tensors& tangents) {
    const Leaves traced(primals, tangents);
    return traced.push_forward(f(traced.tensors()));
  };
  return flat::custom_jvp("random", f, rule, arguments, Location::current());
}

Tensors with_vjp(const flat::Function& f, const Tensors& arguments) {
  const flat::VjpRule rule = [f](const Tensors& primals, const Tensors&,
                                 const Tensors& cotangents) {
    const Leaves traced(primals);
    return traced.linear_map(f(traced.tensors())).transpose(cotangents);
  };
  return flat::custom_vjp("random", f, rule, arguments, Location::current());
}

// Linear in a and b together; c is captured.
Tensors linear(std::int64_t way, const Tensors& ab, const Tensor& c) {
  const Tensor &a = ab[0], flat = reshape(ab[1], {ab[1].elements()});
  switch (way) {
    case 0:
      return {a * fit(c, a.shape()) + fit(flat, a.shape())};
    case 1:
      return {cumsum(flat, 0) * 0.5, sum(a) - 2.0 * sum(flat)};
    case 2:
      return {matmul(reshape(a, {a.elements(), 1}), reshape(fit(c, {2}), {1, 2})), flip(flat, {0})};
    default:
      return {concat({reshape(a, {a.elements()}), -flat}, 0)};
  }
}

}  // namespace

void add_region_actions(std::vector<Action>& table) {
  const auto body = [](bool captures) {
    return [captures](Drawing& drawing, Step& step) { return draw_body(drawing, step, captures); };
  };
  table.push_back({"checkpoint", body(true), region_of(checkpointed), 3});
  table.push_back({"custom_jvp", body(false), region_of(with_jvp), 2});
  table.push_back({"custom_vjp", body(false), region_of(with_vjp), 1});
  table.push_back(
      {"custom_linear",
       [](Drawing& drawing, Step& step) {
         step.operands = {drawing.floating(), drawing.floating(), drawing.floating()};
         step.numbers = {drawing.choices.below(4)};
         const double elements = static_cast<double>(drawing.tensor(step.operands[0]).elements() +
                                                     drawing.tensor(step.operands[1]).elements());
         return 9 + 6 * elements;
       },
       [](const Scope& scope) {
         const std::int64_t way = scope.number(0);
         const Tensor c = scope.in[2];
         const auto f = [way, c](const Tensors& ab) { return linear(way, ab, c); };
         const Tensors arguments{scope.in[0], scope.in[1]};
         if (!scope.options.regions) return f(arguments);
         const auto transpose =
             [f, like = Tensors{zeros_like(arguments[0]), zeros_like(arguments[1])}](
                 const Tensors& cotangents) {
               const Leaves traced(like, Leaves::linear);
               return traced.placeholder_map(f(traced.tensors())).transpose(cotangents);
             };
         return flat::custom_linear("random", f, transpose, arguments, Location::current());
       },
       2});
}

bool has_forward_mode(const std::vector<Step>& steps) {
  static const std::size_t without = action_named("custom_vjp");
  return std::all_of(steps.begin(), steps.end(), [](const Step& step) {
    return step.action != without && has_forward_mode(step.body);
  });
}

bool has_regions(const std::vector<Step>& steps) {
  static const std::size_t linear_region = action_named("custom_linear");
  return std::any_of(steps.begin(), steps.end(), [](const Step& step) {
    return step.action == linear_region || !step.body_outputs.empty();
  });
}

}  // namespace fluxion::testing
