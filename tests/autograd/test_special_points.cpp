// The functions of the library where derivatives go wrong - zeros, kinks, ties, saturation -
// against closed forms up to the fourth derivative, in f64, in every nesting of the transforms.
// What is compared is the second part of docs/coverage.md (tests/autograd/coverage_page.h says how
// to update it).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "models/evaluation/losses.h"
#include "models/layers/einsum.h"
#include "models/layers/image.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/layers/order.h"
#include "tests/autograd/closed_forms.h"
#include "tests/autograd/coverage_page.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Function = std::function<Tensor(const Tensor&)>;  // of a scalar

struct SpecialPoint {
  std::string function;  // its name in the header
  std::string formula;
  double at;
  Function f;
  Jet expected;
  double relative = 1e-11;
};

Tensor number(const Tensor& like, double value) { return full_like(like, value); }
// A number that the graph doesn't know to be one.
Tensor stored(const Tensor& like, double value) {
  return Tensor::from(std::vector<double>{value}, {}, like.device()).to(like.dtype());
}
Tensor list(const std::vector<Tensor>& numbers) {
  std::vector<Tensor> parts;
  for (const Tensor& each : numbers) parts.push_back(reshape(each, {1}));
  return concat(parts, 0);
}
Tensor element(const Tensor& x, std::int64_t i) {
  return reshape(slice_axis(reshape(x, {x.elements()}), 0, i, i + 1), {});
}
// [x, 0], [x, 0, 0]
Tensor with_zero(const Tensor& x) { return list({x, number(x, 0)}); }
Tensor with_zeros(const Tensor& x) { return list({x, number(x, 0), number(x, 0)}); }

using Unary = Tensor (*)(const Tensor&, Location);
Function of(Unary f) {
  return [f](const Tensor& x) { return f(x, Location::current()); };
}

std::vector<SpecialPoint> special_points() {
  std::vector<SpecialPoint> all;
  const auto add = [&](const char* function, const char* formula, double at, Function f,
                       const Jet& expected, double relative = 1e-11) {
    all.push_back({function, formula, at, std::move(f), expected, relative});
  };
  const auto each = [&](const char* function, Unary f, Jet (*expected)(double),
                        const std::vector<double>& points) {
    for (const double at : points) add(function, "x", at, of(f), expected(at));
  };

  // Smooth, with tails.
  const std::vector<double> tails{0, 1, 20, -20, 100, -100};
  each("sigmoid", sigmoid, logistic, tails);
  each("sigmoid_slope", sigmoid_slope, logistic_slope, tails);
  each("softplus", softplus, log_of_one_plus_exp, tails);
  each("tanh", tanh, hyperbolic_tangent, tails);
  each(
      "silu", silu, [](double x) { return variable(x) * logistic(x); }, tails);
  each("gelu_tanh", gelu_tanh, gelu_by_tanh, {0, 1, -5, 20, -20, 100, -100});
  each("gelu_erf", gelu_erf, gelu_by_erf, {0, 1, -6, 20, -20, 100, -100});
  each("erf", erf, error_function, {0, 1, 6, -6, 20});
  each("erfc", erfc, complementary_error_function, {0, 1, 6, -6, 20});
  each("exp", exp, exponential, {0, 20, -100});
  each("expm1", expm1,
       [](double x) {
         Jet jet = exponential(x);
         jet[0] = std::expm1(x);
         return jet;
       },
       {0, 20, -40});
  each("log", log, logarithm, {1, 1e-20, 1e20});
  each("log1p", log1p,
       [](double x) {
         Jet jet = logarithm(1 + x);
         jet[0] = std::log1p(x);
         return jet;
       },
       {0, 1e20});
  each("sin", sin, sine, {0});
  each("cos", cos, cosine, {0});
  each("sqrt", sqrt, [](double x) { return power_of(x, 0.5); }, {4, 1e-20, 1e20});
  each("rsqrt", rsqrt, [](double x) { return power_of(x, -0.5); }, {4, 1e-20, 1e20});
  each("reciprocal", reciprocal, [](double x) { return power_of(x, -1); }, {-2, 1e-20, 1e20});
  each("square", square, [](double x) { return Jet{x * x, 2 * x, 2}; }, {0, -3});

  // Kinks and jumps: a convention, and nothing beyond the first derivative.
  const auto nothing = [](double) { return Jet{}; };
  each("abs", abs, nothing, {0});
  each("relu", relu, nothing, {0});
  each("sign", sign, nothing, {0});
  each("floor", floor, nothing, {0});
  each("ceil", ceil, nothing, {0});
  each("round", round, [](double) { return Jet{0}; }, {0.5});
  each("stop_gradient", stop_gradient, [](double x) { return Jet{x}; }, {2});
  add("maximum", "x, 0", 0, [](const Tensor& x) { return maximum(x, 0.0); }, {0, 0.5});
  add("maximum", "x, -x", 0, [](const Tensor& x) { return maximum(x, -x); }, {});
  add("minimum", "x, 0", 0, [](const Tensor& x) { return minimum(x, 0.0); }, {0, 0.5});
  add("clip", "x, 0, 1", 0, [](const Tensor& x) { return clip(x, 0.0, 1.0); }, {0, 0.5});
  add("clip", "x, 0, 1", 1, [](const Tensor& x) { return clip(x, 0.0, 1.0); }, {1, 0.5});
  add("max", "[x, 0, 0]", 0, [](const Tensor& x) { return max(with_zeros(x)); }, {0, 1.0 / 3});
  add("min", "[x, 0]", 0, [](const Tensor& x) { return min(with_zero(x)); }, {0, 0.5});
  add("sort", "[x, 0], the first", 0,
      [](const Tensor& x) { return element(sort(with_zero(x), 0), 0); }, {0, 1});
  add("topk", "[x, 0], the first", 0,
      [](const Tensor& x) { return element(topk(with_zero(x), 1, 0).values, 0); }, {0, 1});
  for (const double at : {0.0, 1.0, -1.0, 3.0})
    add(
        "huber", "x, 0, delta 1", at, [](const Tensor& x) { return huber(x, number(x, 0), 1); },
        at == 3 ? Jet{2.5, 1} : Jet{at * at / 2, at, 1});

  // Powers, lengths and angles.
  for (const double p : {0.0, 1.0, 2.0, 3.0, 4.0}) {
    static const char* const formulas[] = {"x, 0", "x, 1", "x, 2", "x, 3", "x, 4"};
    const char* formula = formulas[static_cast<std::size_t>(p)];
    Jet at_zero{};
    at_zero[static_cast<std::size_t>(p)] = factorials[static_cast<std::size_t>(p)];
    add(
        "pow", formula, 0, [p](const Tensor& x) { return pow(x, p); }, at_zero);
    add(
        "pow", formula, 0, [p](const Tensor& x) { return pow(x, stored(x, p)); }, at_zero);
    add(
        "pow", formula, -2, [p](const Tensor& x) { return pow(x, p); }, power_of(-2, p));
  }
  add(
      "pow", "x, 0.5", 4, [](const Tensor& x) { return pow(x, 0.5); }, power_of(4, 0.5));
  const double two = std::log(2.0);
  add("pow", "2, x", 0, [](const Tensor& x) { return pow(2.0, x); },
      {1, two, two * two, two * two * two, two * two * two * two});
  add("pow", "0, x", 2, [](const Tensor& x) { return pow(0.0, x); }, {});
  add("pow", "1 + x, x", 0, [](const Tensor& x) { return pow(1.0 + x, x); }, {1, 0, 2, -3, 20});
  add("hypot", "x, 0", 0, [](const Tensor& x) { return hypot(x, 0.0); }, {});
  add("hypot", "3 x, 4 x", 0, [](const Tensor& x) { return hypot(3.0 * x, 4.0 * x); }, {});
  add("hypot", "x, 0", -2, [](const Tensor& x) { return hypot(x, 0.0); }, {2, -1});
  for (const double at : {0.0, 1.0})
    add(
        "hypot", "x, 1", at, [](const Tensor& x) { return hypot(x, 1.0); }, length(at, 1));
  add("atan2", "x, 2 x", 0, [](const Tensor& x) { return atan2(x, 2.0 * x); }, {});
  add(
      "atan2", "x, 1", 0, [](const Tensor& x) { return atan2(x, 1.0); }, arc_tangent(0));
  add(
      "atan2", "x, 1", 1, [](const Tensor& x) { return atan2(x, 1.0); }, arc_tangent(1), 1e-10);
  add("atan2", "1, x", 0, [](const Tensor& x) { return atan2(1.0, x); }, {pi / 2, -1, 0, 2, 0});
  add("atan2", "x, 0", 1, [](const Tensor& x) { return atan2(x, 0.0); }, {pi / 2});
  add("squared_norm", "[x, 2]", 0,
      [](const Tensor& x) {
        return element(squared_norm(reshape(list({x, number(x, 2)}), {1, 2})), 0);
      },
      {4, 0, 2});
  for (const double c : {1.0, 0.001, 0.0}) {
    const auto loss = [c](const Tensor& x) {
      const Tensor pair = reshape(with_zero(x), {1, 2});
      return element(pseudo_huber(pair, zeros_like(pair), c), 0);
    };
    const char* formula = c == 1 ? "x, 0, c 1" : c == 0 ? "x, 0, c 0" : "x, 0, c 0.001";
    add("pseudo_huber", formula, 0, loss, c == 0 ? Jet{} : Jet{0, 0, 1 / c, 0, -3 / (c * c * c)});
    if (c != 0.001)
      add("pseudo_huber", formula, 2, loss, c == 0 ? Jet{2, 1} : length(2, c) + Jet{-c});
  }

  // Statistics of equal values.
  add("mean", "[x, 0]", 0, [](const Tensor& x) { return mean(with_zero(x)); }, {0, 0.5});
  add("centred", "[x, 0, 0], the first", 0,
      [](const Tensor& x) { return element(centred(with_zeros(x)), 0); }, {0, 2.0 / 3});
  add("var", "[x, 0, 0]", 0, [](const Tensor& x) { return var(with_zeros(x)); }, {0, 0, 4.0 / 9});
  add("var", "[x, 0, 0], ddof 1", 0,
      [](const Tensor& x) { return var(with_zeros(x), {}, false, 1); }, {0, 0, 2.0 / 3});
  for (const double epsilon : {0.25, 1e-5}) {
    const char* formula = epsilon == 0.25 ? "[x, 0, 0], epsilon 0.25, the first"
                                          : "[x, 0, 0], epsilon 1e-5, the first";
    const double scale = 1 / std::sqrt(epsilon), cube = scale / epsilon;
    const Jet centred_norm{0, 2 * scale / 3, 0, -4 * cube / 9};
    add(
        "layer_norm", formula, 0,
        [epsilon](const Tensor& x) { return element(layer_norm(with_zeros(x), epsilon), 0); },
        centred_norm);
    add(
        "group_norm", formula, 0,
        [epsilon](const Tensor& x) {
          return element(group_norm(reshape(with_zeros(x), {1, 1, 3, 1}), 1, epsilon), 0);
        },
        centred_norm);
    add("rms_norm", formula, 0,
        [epsilon](const Tensor& x) { return element(rms_norm(with_zeros(x), epsilon), 0); },
        {0, scale, 0, -cube});
  }

  // Shares of a whole.
  for (const double at : tails) {
    const Jet share = logistic(at), rest = log_of_one_plus_exp(-at);
    add(
        "softmax", "[x, 0], the first", at,
        [](const Tensor& x) { return element(softmax(with_zero(x)), 0); }, share);
    const Jet minus_rest{-rest[0], rest[1], -rest[2], rest[3], -rest[4]};
    add(
        "log_softmax", "[x, 0], the first", at,
        [](const Tensor& x) { return element(log_softmax(with_zero(x)), 0); }, minus_rest);
    add(
        "logsumexp", "[x, 0]", at, [](const Tensor& x) { return logsumexp(with_zero(x)); },
        log_of_one_plus_exp(at));
  }
  add(
      "softmax", "[x, 0, -inf], the first", 0,
      [](const Tensor& x) {
        return element(softmax(list({x, number(x, 0), number(x, -HUGE_VAL)})), 0);
      },
      logistic(0));
  add(
      "logsumexp", "[x, 0, -inf]", 0,
      [](const Tensor& x) {
        return logsumexp(list({x, number(x, 0), number(x, -HUGE_VAL)}));
      },
      log_of_one_plus_exp(0));
  for (const double at : {0.0, 5.0})
    add(
        "attention", "q [x], k [1; 0], v [1; 0]", at,
        [](const Tensor& x) {
          const Tensor one_zero = reshape(list({number(x, 1), number(x, 0)}), {2, 1});
          return element(attention(reshape(x, {1, 1}), one_zero, one_zero), 0);
        },
        logistic(at), 1e-9);

  add("strong_div", "x, 1 + x", 0, [](const Tensor& x) { return strong_div(x, 1.0 + x); },
      {0, 1, -2, 6, -24});
  add("div", "x, 1 + x", 0, [](const Tensor& x) { return x / (1.0 + x); }, {0, 1, -2, 6, -24});
  // Distances of sets that meet.
  const auto set = [](const Tensor& a, const Tensor& b) { return reshape(list({a, b}), {2, 1}); };
  for (const double at : {0.0, 2.0})
    add("energy_loss", "{x}, {0}", at,
        [](const Tensor& x) {
          return energy_loss(reshape(x, {1, 1}), zeros_like(reshape(x, {1, 1})));
        },
        {2 * at, at == 0 ? 0.0 : 2});
  const double half = std::exp(-0.5);
  add("mmd2_rbf_loss", "{x, 0}, {1, 1}, bandwidth 1", 0,
      [set](const Tensor& x) {
        return mmd2_rbf_loss(set(x, number(x, 0)), set(number(x, 1), number(x, 1)), 1);
      },
      {2 - 2 * half, -half, -1, 2 * half, 3 + 2 * half});
  add("sliced_wasserstein2_loss", "{x, 0}, {0, 0}, [1]", 0,
      [set](const Tensor& x) {
        const Tensor zero = number(x, 0);
        return sliced_wasserstein2_loss(set(x, zero), set(zero, zero),
                                        full_like(set(zero, zero), 1));
      },
      {0, 0, 1});
  // Products with zeros among their factors.
  add("prod", "[x, x, 2]", 0,
      [](const Tensor& x) {
        return prod(list({x, x, number(x, 2)}));
      },
      {0, 0, 4});
  add("cumprod", "[x, x, x], the last", 0,
      [](const Tensor& x) {
        return element(cumprod(list({x, x, x}), 0), 2);
      },
      {0, 0, 0, 6});
  add("einsum", "\"i,i->\", [x, 1], [x, 1]", 0,
      [](const Tensor& x) {
        const Tensor pair = list({x, number(x, 1)});
        return einsum("i,i->", {pair, pair});
      },
      {1, 0, 2});
  add(
      "timestep_embedding", "x, its cosine", 0,
      [](const Tensor& x) { return element(timestep_embedding(reshape(x, {1}), 2), 0); },
      cosine(0));
  add(
      "timestep_embedding", "x, its sine", 0,
      [](const Tensor& x) { return element(timestep_embedding(reshape(x, {1}), 2), 1); }, sine(0));
  add(
      "sinusoids", "x, its cosine", 0,
      [](const Tensor& x) { return element(sinusoids(reshape(x, {1}), {1}), 0); }, cosine(0));
  add(
      "sinusoids", "x, its sine", 0,
      [](const Tensor& x) { return element(sinusoids(reshape(x, {1}), {1}), 1); }, sine(0));
  return all;
}

// ---- nestings

Function forward_mode(const Function& f) {
  return [f](const Tensor& x) { return jvp(f, x, ones_like(x)).second; };
}
Function reverse_mode(const Function& f) { return grad(f); }
Function kept_whole(const Function& f) { return checkpoint(f); }

// f, f', .., f'''' with the k-th derivative by step(k).
std::vector<Function> tower(Function f, const std::function<Function(int, Function)>& step,
                            int count = 5) {
  std::vector<Function> all{f};
  for (int k = 1; k < count; ++k) all.push_back(f = step(k, f));
  return all;
}
Tensors at(const std::vector<Function>& functions, const Tensor& x) {
  Tensors values;
  for (const Function& f : functions) values.push_back(f(x));
  return values;
}

struct Nesting {
  const char* name;
  std::function<Tensors(const Function&, const Tensor&)> derivatives;
};
const Nesting nestings[] = {
    {"jvp of jvp of jvp of jvp",
     [](const Function& f, const Tensor& x) {
       return at(tower(f, [](int, const Function& g) { return forward_mode(g); }), x);
     }},
    {"vjp of vjp of vjp of vjp",
     [](const Function& f, const Tensor& x) {
       return at(tower(f, [](int, const Function& g) { return reverse_mode(g); }), x);
     }},
    {"jvp of vjp of jvp of vjp",
     [](const Function& f, const Tensor& x) {
       return at(
           tower(f, [](int k,
                       const Function& g) { return k % 2 ? reverse_mode(g) : forward_mode(g); }),
           x);
     }},
    {"vjp of jvp of vjp of jvp",
     [](const Function& f, const Tensor& x) {
       return at(
           tower(f, [](int k,
                       const Function& g) { return k % 2 ? forward_mode(g) : reverse_mode(g); }),
           x);
     }},
    {"of checkpoints",
     [](const Function& f, const Tensor& x) {
       return at(tower(kept_whole(f),
                       [](int k, const Function& g) {
                         return kept_whole(k % 2 ? reverse_mode(g) : forward_mode(g));
                       }),
                 x);
     }},
    {"of a vmap",
     [](const Function& f, const Tensor& x) {
       const Tensor both = broadcast_to(x, {2});
       Tensors values;
       for (const Function& each : tower(f, [](int k, const Function&g) {
              return k % 2 ? reverse_mode(g) : forward_mode(g);
            }))
         values.push_back(element(vmap(each)(both), 1));
       return values;
     }},
    {"compiled",
     [](const Function& f, const Tensor& x) {
       const auto all = tower(
           f, [](int k, const Function& g) { return k < 3 ? reverse_mode(g) : forward_mode(g); });
       return compile([all](const Tensor& y) { return at(all, y); })(x);
     }},
};

void check(const Nesting& nesting) {
  const Device device = cpu({.threads = 1});
  for (const SpecialPoint& point : special_points()) {
    INFO(nesting.name << ": " << point.function << " (" << point.formula << ") at " << point.at);
    Tensors values;
    try {
      values =
          nesting.derivatives(point.f, Tensor::from(std::vector<double>{point.at}, {}, device));
      eval(values);
    } catch (const std::exception& error) {
      FAIL_CHECK("threw: " << error.what());
      continue;
    }
    double largest = 0;
    for (const double each : point.expected) largest = std::max(largest, std::abs(each));
    for (std::size_t order = 0; order < values.size(); ++order) {
      const double got = values[order].item<double>(), want = point.expected[order];
      // A zero may be a difference of numbers as large as the others.
      const double allowed = want == 0 ? point.relative * largest : point.relative * std::abs(want);
      const bool good = std::abs(got - want) <= allowed;
      if (!good) FAIL_CHECK("derivative " << order << " is " << got << ", not " << want);
    }
  }
}

// ---- the page

// The functions that the public headers declare and that return tensors.
std::set<std::string> declared_functions() {
  const std::filesystem::path root = FLUXION_SOURCE_DIR;
  std::vector<std::filesystem::path> headers{root / "engine/graph/ops.h",
                                             root / "models/evaluation/losses.h"};
  for (const auto& file : std::filesystem::directory_iterator(root / "models/layers"))
    if (file.path().extension() == ".h") headers.push_back(file.path());
  const std::regex declaration(R"(^(inline )?(Tensor|TopK|std::vector<Tensor>) ([a-z0-9_]+)\()");
  std::set<std::string> names;
  for (const std::filesystem::path& header : headers) {
    std::ifstream file(header);
    std::smatch match;
    for (std::string line; std::getline(file, line);)
      if (std::regex_search(line, match, declaration)) names.insert(match[3]);
  }
  return names;
}

// Why a function is not in the table.
const std::map<std::string, std::vector<std::string>> left_out{
    {"constant",
     {"full", "zeros", "zeros_like", "ones_like", "full_like", "iota", "one_hot", "random_key",
      "fold_in", "split_key", "random_bits", "uniform", "normal", "sincos_pos_embed_2d",
      "tensor_of"}},
    {"whole numbers and truth values",
     {"lt", "le", "gt", "ge", "eq", "ne", "argmax", "argsort", "shift_right"}},
    {"linear, or linear in each operand",
     {"neg", "add", "sub", "mul", "strong_mul", "sum", "cumsum", "matmul", "index_add",
      "scatter_add", "linear", "product", "modulate", "conv2d", "conv2d_transpose", "avg_pool2d"}},
    {"moves elements",
     {"convert", "where", "reshape", "transpose", "swap_axes", "broadcast_to", "slice",
      "slice_axis", "pad", "concat", "split", "flip", "expand_dims", "take", "take_along_axis",
      "per_sample", "patchify", "unpatchify", "upsample_nearest2d"}},
    {"made of others in the table", {"multihead_self_attention"}},
};

std::string page() {
  std::string text = std::string(CoveragePage::heading) +
                     "\nWritten by tests/autograd/test_special_points.cpp. The values are closed "
                     "forms. In f64, on "
                     "the CPU, the\nlibrary gives each of them by";
  for (const Nesting& nesting : nestings)
    text += std::string(&nesting == nestings ? " " : ", ") + nesting.name;
  text +=
      ": to a relative error of\n1e-9 or less, small ones too. At kinks and jumps it is the "
      "convention that the header states.\n\n| function | of | at x = | f | f' | f'' | f''' | "
      "f'''' |\n|---|---|---|---|---|---|---|---|\n";
  const auto written = [](double value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.6g", value == 0 ? 0.0 : value);
    return std::string(digits);
  };
  std::set<std::string> rows;
  for (const SpecialPoint& point : special_points()) {
    std::string row =
        "| " + point.function + " | " + point.formula + " | " + written(point.at) + " |";
    for (const double each : point.expected) row += " " + written(each) + " |";
    if (rows.insert(row).second) text += row + "\n";
  }
  text += "\nNot in the table:\n\n";
  for (const auto& [reason, names] : left_out) {
    text += "- " + reason + ":";
    for (const std::string& name : names)
      text += std::string(&name == names.data() ? " " : ", ") + name;
    text += "\n";
  }
  return text;
}

}  // namespace

TEST_CASE("forward over forward mode is right at special points, to the fourth derivative",
          "[autograd][special]") {
  check(nestings[0]);
}
TEST_CASE("reverse over reverse mode is right at special points, to the fourth derivative",
          "[autograd][special]") {
  check(nestings[1]);
}
TEST_CASE("mixed modes are right at special points, to the fourth derivative",
          "[autograd][special]") {
  check(nestings[2]);
  check(nestings[3]);
}
TEST_CASE("derivatives of checkpoints are right at special points", "[autograd][special]") {
  check(nestings[4]);
}
TEST_CASE("derivatives under vmap are right at special points", "[autograd][special]") {
  check(nestings[5]);
}
TEST_CASE("compiled derivatives are right at special points", "[autograd][special]") {
  check(nestings[6]);
}

// Operands are rounded to f32, and an error of the exponent of e^x is one of e^x times |x|.
TEST_CASE("first and second derivatives in f32 keep their digits at special points",
          "[autograd][special]") {
  constexpr double most = std::numeric_limits<float>::max(),
                   least = std::numeric_limits<float>::min(), relative = 5e-5;
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const SpecialPoint& point : special_points()) {
      INFO(device.name() << ": " << point.function << " (" << point.formula << ") at " << point.at);
      const Tensor x = Tensor::from(std::vector<float>{static_cast<float>(point.at)}, {}, device);
      const Tensors values =
          at(tower(
                 point.f, [](int, const Function& g) { return reverse_mode(g); }, 3),
             x);
      eval(values);
      double largest = 0;
      for (std::size_t order = 0; order < values.size(); ++order) {
        const double got = values[order].item<float>(), want = point.expected[order];
        largest = std::max(largest, std::abs(want));
        if (!(std::abs(want) < most)) continue;
        const double allowed = least + relative * (want == 0 ? largest : std::abs(want));
        if (!(std::abs(got - want) <= allowed))
          FAIL_CHECK("derivative " << order << " is " << got << ", not " << want);
      }
    }
}

TEST_CASE("angles and lengths have derivatives wherever f32 has points", "[autograd][special]") {
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const float size : {1e-38f, 1e-25f, 1.0f, 1e25f, 1e38f}) {
      CAPTURE(device.name(), size);
      const auto number = [&](float value) {
        return Tensor::from(std::vector<float>{value}, {}, device);
      };
      const Tensor x = number(size);
      const auto slopes = [&](const std::function<Tensor(const Tensor&, const Tensor&)>& f) {
        const auto [dy, dx] = vjp(f, x, x).second(number(1));
        return std::pair(dy.item<float>(), dx.item<float>());
      };
      const auto angle = slopes([](const Tensor& y, const Tensor& x) { return atan2(y, x); });
      CHECK(angle.first == Approx(0.5 / size).epsilon(1e-6));
      CHECK(angle.second == Approx(-0.5 / size).epsilon(1e-6));
      const auto length = slopes([](const Tensor& a, const Tensor& b) { return hypot(a, b); });
      CHECK(length.first == Approx(std::sqrt(0.5)).epsilon(1e-6));
      CHECK(length.second == Approx(std::sqrt(0.5)).epsilon(1e-6));
    }
}

TEST_CASE("functions are right in the tails of f32", "[autograd][special]") {
  for (const Device& device : {cpu({.threads = 1}), reference()}) {
    INFO(device.name());
    const auto value = [&](Unary f, float x) {
      return f(Tensor::from(std::vector<float>{x}, {}, device), Location::current()).item<float>();
    };
    CHECK(value(gelu_erf, -6) == Approx(-5.919526e-9).epsilon(5e-6));
    CHECK(value(gelu_erf, -12) == Approx(-2.1317785e-32).epsilon(2e-5));
    CHECK(value(erfc, 6) == Approx(2.1519737e-17).epsilon(1e-6));
    CHECK(value(erfc, -6) == 2);
    CHECK(value(erfc, 9.3f) == Approx(std::erfc(static_cast<double>(9.3f))).epsilon(1e-5));
    CHECK(value(softplus, -80) == Approx(std::exp(-80.0)).epsilon(1e-6));
    CHECK(value(sigmoid, -80) == Approx(std::exp(-80.0)).epsilon(1e-6));
    // Small beside c, where sqrt(d^2 + c^2) rounds to c.
    const Tensor d = Tensor::from(std::vector<float>{1e-5f}, {1}, device);
    CHECK(pseudo_huber(d, zeros_like(d), 1).to_host<float>()[0] == Approx(5e-11).epsilon(1e-6));
    // Far beyond the root of the largest number.
    const Tensor far = Tensor::from(std::vector<float>{1e20f}, {1}, device);
    CHECK(pseudo_huber(far, zeros_like(far), 1).to_host<float>()[0] == HUGE_VALF);
    // No more numbers than degrees of freedom: no variance is negative.
    const Tensor pair = Tensor::from(std::vector<float>{3, 5}, {2}, device);
    CHECK(var(pair, {0}, false, 3).item<float>() == HUGE_VALF);
    // Infinities.
    const float infinite = HUGE_VALF;
    const auto sum_of = [&](std::vector<float> x) {
      return logsumexp(Tensor::from(x, {2}, device)).item<float>();
    };
    CHECK(sum_of({infinite, infinite}) == infinite);
    CHECK(sum_of({infinite, 0}) == infinite);
    CHECK(sum_of({-infinite, 0}) == 0);
    CHECK(sum_of({-infinite, -infinite}) == -infinite);
    CHECK(sum_of({0, -20}) == Approx(std::log1p(std::exp(-20.0))).epsilon(1e-6));
    const Tensor sure = log_softmax(Tensor::from(std::vector<float>{20, 0}, {2}, device));
    CHECK(sure.to_host<float>()[0] == Approx(-std::log1p(std::exp(-20.0))).epsilon(1e-6));
    CHECK(logsumexp(zeros({0}, DType::f32, device)).item<float>() == -infinite);
    CHECK(value(softplus, infinite) == infinite);
    CHECK(value(softplus, -infinite) == 0);
    CHECK(std::isnan(value(softplus, NAN)));
    CHECK(value(erfc, infinite) == 0);
    CHECK(value(erfc, -infinite) == 2);
  }
}

TEST_CASE("every function of the public headers has special points, or a reason to have none",
          "[autograd][special]") {
  std::set<std::string> known;
  for (const SpecialPoint& point : special_points()) known.insert(point.function);
  for (const auto& [reason, names] : left_out)
    for (const std::string& name : names) {
      if (!known.insert(name).second) FAIL_CHECK(name << " is named twice");
    }
  const std::set<std::string> declared = declared_functions();
  REQUIRE(declared.size() > 100);
  for (const std::string& name : declared)
    if (!known.contains(name)) FAIL_CHECK(name << " is in no row of special_points()");
  for (const std::string& name : known)
    if (!declared.contains(name)) FAIL_CHECK("no public header declares " << name);
}

TEST_CASE("the table of derivatives at special points is the one in the documents",
          "[autograd][special]") {
  const std::string text = page();
  INFO("docs/coverage.md is not what this test would write; see tests/autograd/coverage_page.h");
  CHECK((CoveragePage::committed(CoveragePage::special_points, text) == text));
}
