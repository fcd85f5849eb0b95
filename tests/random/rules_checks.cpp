#include "tests/random/rules_checks.h"

#include <algorithm>
#include <cmath>

#include "autograd/check.h"
#include "autograd/linearize.h"
#include "autograd/rules.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/custom.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"

namespace fluxion::testing {

namespace {

const Device& device() {
  static const Device one = cpu({1});
  return one;
}

Tensors f64_only(Tensors tensors) {
  std::erase_if(tensors,
                [](const Tensor& tensor) { return !tensor || tensor.dtype() != DType::f64; });
  return tensors;
}

bool any_floating(const OpExample& example) {
  return std::any_of(example.inputs.begin(), example.inputs.end(),
                     [](const HostValue& value) { return value.dtype == DType::f64; });
}

bool has_kind(const OpExample& example, Region::Kind kind) {
  if (example.op != Op::region) return false;
  const Tensors outputs = example.f(to_tensors(example.inputs, device()));
  for (const Tensor& output : outputs)
    if (output.node()->op == Op::region &&
        std::get<RegionAttributes>(output.node()->attributes).region->kind == kind)
      return true;
  return false;
}

// A smooth, uneven scalar of the outputs: sum over k and i of sin(y_ki + i / 7 + k).
Tensor wave(const Tensors& outputs) {
  Tensor total;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const Tensor flat = reshape(outputs[k], {outputs[k].elements()});
    const Tensor part =
        sum(sin(flat + iota(flat.shape(), 0, DType::f64, flat.device()) * (1.0 / 7) +
                static_cast<double>(k)));
    total = total ? total + part : part;
  }
  return total;
}

Tensors gradient_of_wave(const TensorFunction& f, const Tensors& inputs) {
  Leaves traced(inputs);
  const Tensor scalar = wave(f64_only(f(traced.tensors())));
  return f64_only(traced.linear_map({scalar}).transpose({ones_like(scalar)}));
}

std::string check_first_order(const OpExample& example) {
  const Tensors inputs = to_tensors(example.inputs, device());
  Tensors tangents;
  for (const Tensor& input : inputs)
    tangents.push_back(is_floating(input.dtype()) ? ones_like(input) : Tensor());
  {
    Leaves traced(inputs, tangents);
    const Tensors outputs = example.f(traced.tensors());
    const Tensors moved = traced.push_forward(outputs);
    for (std::size_t i = 0; i < outputs.size(); ++i)
      if (!is_floating(outputs[i].dtype()) && moved[i])
        return "an output that is not floating has a tangent";
  }
  if (f64_only(example.f(inputs)).empty()) return "";
  return fluxion::check_derivatives([&](const Tensors& x) { return f64_only(example.f(x)); },
                                    inputs)
      .message;
}

// <J'u, v> against the difference of <u, f> along v.
std::string check_reverse(const TensorFunction& f, const Tensors& inputs, double tolerance) {
  const auto weighted = [&](const Tensors& x) { return wave(f64_only(f(x))); };
  const Tensors gradient = gradient_of_wave(f, inputs);
  Tensors along;
  double got = 0;
  std::size_t next = 0;
  for (const Tensor& input : inputs) {
    along.push_back(input.dtype() == DType::f64
                        ? to_tensor(random_value(input.shape(), -1, 1, 5 + along.size()), device())
                        : Tensor());
    if (along.back()) got += sum(gradient[next++] * along.back()).item<double>();
  }
  const auto at = [&](double step) {
    Tensors moved = inputs;
    for (std::size_t i = 0; i < moved.size(); ++i)
      if (along[i]) moved[i] = moved[i] + step * along[i];
    return weighted(moved).item<double>();
  };
  const double h = 1e-3, expected = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  return std::abs(got - expected) <= tolerance * (1 + std::abs(expected))
             ? ""
             : "the gradient differs from finite differences";
}

// The cotangent of operand `operand` of a function that is linear in it, for these cotangents of
// the outputs.
Tensor transposed(const TensorFunction& f, Tensors inputs, std::size_t operand,
                  const Tensors& cotangents) {
  const Leaves traced({inputs[operand]}, Leaves::linear);
  inputs[operand] = traced.tensors()[0];
  return traced.placeholder_map(f(inputs)).transpose(cotangents)[0];
}

Tensors random_like(const Tensors& outputs, std::uint64_t seed) {
  Tensors result;
  for (const Tensor& output : outputs)
    result.push_back(
        output.dtype() == DType::f64
            ? to_tensor(random_value(output.shape(), -1, 1, seed + result.size()), output.device())
            : Tensor());
  return result;
}

// Whether autograd can transpose the example in this operand; nothing is computed.
bool is_linear_in(const OpExample& example, std::size_t operand) {
  const Tensors inputs = to_tensors(example.inputs, device());
  if (inputs[operand].dtype() != DType::f64) return false;
  try {
    transposed(example.f, inputs, operand, random_like(example.f(inputs), 3));
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::string check_transposed(const OpExample& example) {
  const Tensors inputs = to_tensors(example.inputs, device());
  for (std::size_t operand = 0; operand < inputs.size(); ++operand) {
    if (!is_linear_in(example, operand)) continue;
    Tensors at_zero = inputs;
    at_zero[operand] = zeros_like(inputs[operand]);
    const Tensors there = example.f(inputs), origin = example.f(at_zero),
                  cotangents = random_like(there, 61);
    double left = 0;
    for (std::size_t i = 0; i < there.size(); ++i)
      if (cotangents[i]) left += sum(cotangents[i] * (there[i] - origin[i])).item<double>();
    const double right =
        sum(transposed(example.f, inputs, operand, cotangents) * inputs[operand]).item<double>();
    if (!(std::abs(left - right) <= 1e-10 * (1 + std::abs(left))))
      return "the transpose in operand " + std::to_string(operand) + " is not the transpose";
  }
  return "";
}

// What forward mode makes of a custom_vjp - a map v -> J v that has a transpose and no value - is
// differentiated, batched and transposed.
std::string check_opaque(const OpExample& example) {
  const Tensors x = to_tensors(example.inputs, device()), along = random_like(x, 71),
                cotangents = random_like(example.f(x), 81);
  const auto map = [&](const Tensors& v) {
    const Leaves traced(x, v);
    return traced.push_forward(example.f(traced.tensors()));
  };
  const auto pulled = [](const TensorFunction& f, const Tensors& at, const Tensors& u) {
    const Leaves traced(at);
    return traced.linear_map(f(traced.tensors())).transpose(u);
  };
  const auto rows = [](const Tensors& tensors) {
    Tensors result;
    for (const Tensor& each : tensors)
      result.push_back(concat({expand_dims(each, 0), expand_dims(2.0 * each, 0)}, 0));
    return result;
  };
  const Tensors expected = pulled(example.f, x, cotangents), got = pulled(map, along, cotangents);
  const auto every = [&](const Tensors& v) {
    const MappedLeaves traced(v, std::vector<MappedAxis>(v.size(), MappedAxis(0)));
    return traced.batch(map(traced.tensors()));
  };
  const Tensors all_expected = rows(expected), all = pulled(every, rows(along), rows(cotangents));
  for (std::size_t i = 0; i < x.size(); ++i)
    for (const auto& [a, b] : {std::pair{got[i], expected[i]}, {all[i], all_expected[i]}}) {
      const std::string failure = difference(a, b, 1e-12, 1e-12);
      if (!failure.empty()) return "transpose of the jvp of a custom_vjp: " + failure;
    }
  return "";
}

// Variants of an operand in its own domain: its values moved round.
HostValue moved(const HostValue& value, std::size_t by) {
  HostValue result = value;
  if (!result.values.empty())
    std::rotate(result.values.begin(),
                result.values.begin() + static_cast<std::ptrdiff_t>(by % result.values.size()),
                result.values.end());
  return result;
}

std::string check_batched(const OpExample& example) {
  const std::size_t operands = example.inputs.size(), size = 3;
  // All, and each alone.
  std::vector<std::vector<bool>> subsets{std::vector<bool>(operands, true)};
  for (std::size_t i = 0; operands > 1 && i < operands; ++i) {
    subsets.emplace_back(operands, false);
    subsets.back()[i] = true;
  }
  for (const std::vector<bool>& mapped : subsets) {
    std::vector<Tensors> examples(size);
    for (std::size_t e = 0; e < size; ++e)
      for (std::size_t i = 0; i < operands; ++i) {
        HostValue value = moved(example.inputs[i], mapped[i] ? e : 0);
        // Different also where a value has one element.
        if (mapped[i])
          for (double& each : value.values) {
            if (value.dtype == DType::f64) each *= 1 - static_cast<double>(e) / 16;
            if (value.dtype == DType::u32) each = std::max(each - static_cast<double>(e), 0.0);
          }
        examples[e].push_back(to_tensor(value, device()));
      }
    Tensors arguments;
    std::vector<MappedAxis> axes;
    for (std::size_t i = 0; i < operands; ++i) {
      Tensors rows;
      for (const Tensors& each : examples) rows.push_back(expand_dims(each[i], 0));
      arguments.push_back(mapped[i] ? concat(rows, 0) : examples[0][i]);
      axes.push_back(mapped[i] ? MappedAxis(0) : not_mapped);
    }
    const MappedLeaves traced(arguments, axes);
    const Tensors batched = traced.batch(example.f(traced.tensors()));
    std::vector<Tensors> looped;
    for (const Tensors& each : examples) looped.push_back(example.f(each));
    for (std::size_t k = 0; k < batched.size(); ++k) {
      Tensors rows;
      for (const Tensors& each : looped) rows.push_back(expand_dims(each[k], 0));
      const std::string failure = difference(batched[k], concat(rows, 0), 1e-10, 1e-10);
      if (!failure.empty()) return "vmapped against looped: " + failure;
    }
  }
  return "";
}

}  // namespace

const std::vector<OpExample>& all_examples() {
  static const std::vector<OpExample> examples = [] {
    std::vector<OpExample> all = op_examples();
    all.push_back({Op::region,
                   "region with a vjp of its own",
                   {random_value({3, 2}, -2, 2, 91), random_value({2}, -2, 2, 92)},
                   [](const Tensors& x) {
                     const auto f = [](const Tensors& y) {
                       return Tensors{sin(y[0]) * y[1], sum(y[0] * y[0])};
                     };
                     const flat::VjpRule rule = [f](const Tensors& primals, const Tensors&,
                                                    const Tensors& cotangents) {
                       const Leaves traced(primals);
                       return traced.linear_map(f(traced.tensors())).transpose(cotangents);
                     };
                     return flat::custom_vjp("own", f, rule, x, Location::current());
                   }});
    all.push_back({Op::region,
                   "region with a jvp of its own",
                   {random_value({3, 2}, -2, 2, 93), random_value({2}, -2, 2, 94)},
                   [](const Tensors& x) {
                     const auto f = [](const Tensors& y) {
                       return Tensors{exp(0.3 * y[0]) * y[1], sum(y[0]) * y[1]};
                     };
                     const flat::JvpRule rule = [f](const Tensors& primals,
                                                    const Tensors& tangents) {
                       const Leaves traced(primals, tangents);
                       return traced.push_forward(f(traced.tensors()));
                     };
                     return flat::custom_jvp("own", f, rule, x, Location::current());
                   }});
    all.push_back({Op::region,
                   "region with a transpose of its own",
                   {random_value({3, 2}, -2, 2, 95), random_value({6}, -2, 2, 96)},
                   [](const Tensors& x) {
                     const auto f = [](const Tensors& y) {
                       return Tensors{transpose(y[0], {1, 0}) + reshape(y[1], {2, 3}), 2.0 * y[1]};
                     };
                     const flat::Function back = [](const Tensors& u) {
                       return Tensors{transpose(u[0], {1, 0}), reshape(u[0], {6}) + 2.0 * u[1]};
                     };
                     return flat::custom_linear("own", f, back, x, Location::current());
                   }});
    // In the other examples no two elements are equal.
    all.push_back({Op::ne,
                   "ne, some equal",
                   {{{3}, DType::i32, {1, 2, 3}}, {{3}, DType::i32, {1, 0, 0}}},
                   [](const Tensors& x) { return Tensors{ne(x[0], x[1])}; }});
    return all;
  }();
  return examples;
}

const std::vector<ExampleCheck>& all_checks() {
  static const std::vector<ExampleCheck> checks = [] {
    std::vector<ExampleCheck> all;
    for (const OpExample& example : all_examples()) {
      if (info(example.op).op_class != OpClass::leaf) all.push_back({&example, Kind::batching});
      bool linear = false;
      for (std::size_t i = 0;
           i < example.inputs.size() && info(example.op).op_class != OpClass::leaf &&
           transpose_rule(example.op);
           ++i)
        linear = linear || is_linear_in(example, i);
      if (linear && !has_kind(example, Region::Kind::custom_vjp))
        all.push_back({&example, Kind::transposed});
      if (!any_floating(example) || info(example.op).op_class == OpClass::leaf ||
          example.op == Op::stop_gradient)
        continue;
      if (has_kind(example, Region::Kind::custom_vjp)) {
        all.push_back({&example, Kind::reverse});
        continue;
      }
      all.push_back({&example, Kind::first_order});
      if (has_derivative(example.op) &&
          !f64_only(example.f(to_tensors(example.inputs, device()))).empty())
        all.push_back({&example, Kind::second_order});
    }
    return all;
  }();
  return checks;
}

std::string run(const ExampleCheck& check) {
  const OpExample& example = *check.example;
  try {
    const Tensors inputs = to_tensors(example.inputs, device());
    switch (check.kind) {
      case Kind::first_order:
        return check_first_order(example);
      case Kind::second_order:
        return fluxion::check_derivatives(
                   [&](const Tensors& x) { return gradient_of_wave(example.f, x); }, inputs,
                   {.tolerance = 1e-5})
            .message;
      case Kind::transposed:
        return check_transposed(example);
      case Kind::reverse: {
        const std::string first = check_reverse(example.f, inputs, 1e-6);
        if (const std::string opaque = check_opaque(example); !opaque.empty()) return opaque;
        return first.empty()
                   ? check_reverse([&](const Tensors& x) { return gradient_of_wave(example.f, x); },
                                   inputs, 1e-5)
                   : first;
      }
      case Kind::batching:
        return check_batched(example);
    }
  } catch (const std::exception& error) {
    return std::string("threw: ") + error.what();
  }
  return "";
}

const Reached& reached_rules() {
  static const Reached all = [] {
    Reached result;
    for (const ExampleCheck& check : all_checks()) {
      RuleWatch watch;
      const std::string failure = run(check);
      if (!failure.empty()) {
        result.failures.push_back(check.example->label + ": " + failure);
        continue;
      }
      for (const Rule& rule : watch.seen()) {
        auto& list = result.by[rule];
        // The op's own examples first.
        list.insert(rule.op == check.example->op
                        ? std::find_if(
                              list.begin(), list.end(),
                              [&](const ExampleCheck& each) { return each.example->op != rule.op; })
                        : list.end(),
                    check);
      }
      result.given.insert(watch.given.begin(), watch.given.end());
      result.empty.insert(watch.empty.begin(), watch.empty.end());
    }
    return result;
  }();
  return all;
}

const std::map<Rule, std::string>& refused_rules() {
  static const std::map<Rule, std::string> list = [] {
    std::map<Rule, std::string> refused;
    for (const Op op : {Op::data, Op::parameter, Op::constant, Op::iota}) {
      refused[{Table::jvp, op}] = "a leaf depends on nothing";
      refused[{Table::batching, op}] = "a leaf depends on nothing";
    }
    refused[{Table::jvp, Op::stop_gradient}] =
        "its derivative is zero by decree: the walk ends before it";
    refused[{Table::jvp, Op::shift_right}] = "u32 operands carry no tangent";
    refused[{Table::jvp, Op::random_bits}] = "u32 operands carry no tangent";
    return refused;
  }();
  return list;
}

}  // namespace fluxion::testing
