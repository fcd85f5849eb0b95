// A branch that was not taken has derivative 0 in both modes, however wild it is: docs/autodiff.md,
// "Zero times infinity".
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/cpu/targets.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
using Function = std::function<Tensor(const Tensor&)>;

// f of x [n], which does not depend on x at `at`: what was not taken has an infinite derivative
// there, or none.
struct Branch {
  std::string name;
  double at;
  Function f;
};

// Some four elements, the second of which is x.
Tensor beside(const Tensor& x) { return concat({ones_like(x), x, 2.0 * ones_like(x)}, 0); }

const std::vector<Branch>& branches() {
  static const std::vector<Branch> list = {
      {"where sqrt", 0, [](const Tensor& x) { return where(gt(x, 0.5), sqrt(x), 1.0); }},
      {"where sqrt of a negative number", -1,
       [](const Tensor& x) { return where(gt(x, 0.0), sqrt(x), 1.0); }},
      {"where log", 0, [](const Tensor& x) { return where(gt(x, 0.5), log(x), 1.0); }},
      {"where log1p", -1, [](const Tensor& x) { return where(gt(x, 0.5), log1p(x), 1.0); }},
      {"where rsqrt", 0, [](const Tensor& x) { return where(gt(x, 0.0), rsqrt(x), 0.0); }},
      {"where 1 / x", 0, [](const Tensor& x) { return where(ne(x, 0.0), 1.0 / x, 0.0); }},
      {"where x / x", 0, [](const Tensor& x) { return where(ne(x, 0.0), x / x, 0.0); }},
      {"where x / |x|", 0, [](const Tensor& x) { return where(ne(x, 0.0), x / abs(x), 0.0); }},
      {"where x^-2", 0, [](const Tensor& x) { return where(ne(x, 0.0), pow(x, -2.0), 0.0); }},
      {"where x^0.5", 0, [](const Tensor& x) { return where(ne(x, 0.0), pow(x, 0.5), 0.0); }},
      {"0^x", -1, [](const Tensor& x) { return pow(zeros_like(x), x); }},
      {"where 2^x", 1e5, [](const Tensor& x) { return where(lt(x, 9.0), pow(2.0, x), 0.0); }},
      {"where exp", 1e4, [](const Tensor& x) { return where(lt(x, 9.0), exp(x), 1.0); }},
      {"where expm1", 1e4, [](const Tensor& x) { return where(lt(x, 9.0), expm1(x), 1.0); }},
      {"where x log x", 0, [](const Tensor& x) { return where(gt(x, 0.0), x * log(x), 0.0); }},
      {"where sin x / x", 0, [](const Tensor& x) { return where(ne(x, 0.0), sin(x) / x, 1.0); }},
      {"where sin 1/x", 0,
       [](const Tensor& x) { return where(ne(x, 0.0), x * sin(1.0 / x), 0.0); }},
      {"where cos 1/x", 0,
       [](const Tensor& x) { return where(ne(x, 0.0), x * cos(1.0 / x), 0.0); }},
      {"where tanh 1/x", 0, [](const Tensor& x) { return where(ne(x, 0.0), tanh(1.0 / x), 0.0); }},
      {"where sigmoid log", 0,
       [](const Tensor& x) { return where(gt(x, 0.0), sigmoid(log(x)), 0.0); }},
      {"where erf log", 0, [](const Tensor& x) { return where(gt(x, 0.0), erf(log(x)), 0.0); }},
      {"where silu log", 0, [](const Tensor& x) { return where(gt(x, 0.0), silu(log(x)), 0.0); }},
      {"where softplus log", 0,
       [](const Tensor& x) { return where(gt(x, 0.0), softplus(log(x)), 0.0); }},
      {"where gelu log", 0,
       [](const Tensor& x) {
         return where(gt(x, 0.0), gelu_tanh(log(x)) + gelu_erf(log(x)), 0.0);
       }},
      {"where atan2", 0, [](const Tensor& x) { return where(ne(x, 0.0), atan2(x, x), 0.0); }},
      {"where hypot of infinity", inf,
       [](const Tensor& x) { return where(lt(x, 9.0), hypot(x, x), 0.0); }},
      {"where x - x", inf, [](const Tensor& x) { return where(lt(x, 9.0), x - x * x, 0.0); }},
      {"the second branch", 0,
       [](const Tensor& x) { return where(lt(x, 0.5), 1.0, sqrt(x) * log(x)); }},
      {"nested where", 0,
       [](const Tensor& x) {
         return where(gt(x, 0.5), log(where(gt(x, 0.2), sqrt(x), 0.0 * x)), 1.0);
       }},
      {"maximum", 0, [](const Tensor& x) { return maximum(sqrt(x) - 1.0, 0.0); }},
      {"minimum", 0, [](const Tensor& x) { return minimum(1.0 / x, 5.0); }},
      {"clip", 0, [](const Tensor& x) { return clip(log(x), -3.0, 3.0); }},
      {"relu", 0, [](const Tensor& x) { return relu(log(x)); }},
      {"max", 0, [](const Tensor& x) { return max(beside(sqrt(x)), {0}); }},
      {"min", 0, [](const Tensor& x) { return min(beside(1.0 / x), {0}); }},
      {"abs of a constant", 0, [](const Tensor& x) { return 0.0 * sqrt(x); }},
      {"sqrt of a relu", -1, [](const Tensor& x) { return sqrt(relu(x)); }},
      {"log of a clipped number", -1, [](const Tensor& x) { return exp(log(clip(x, 0.0, 1.0))); }},
      {"slice", 0, [](const Tensor& x) { return slice_axis(beside(sqrt(x)), 0, 0, 1); }},
      {"take", 0,
       [](const Tensor& x) {
         return take(beside(sqrt(x)), iota({1}, 0, DType::i32, x.device()), 0);
       }},
      {"logsumexp of -inf", 0,
       [](const Tensor& x) { return where(gt(x, 0.5), logsumexp(log(beside(x)), {0}), 0.0); }},
      {"softmax of infinite scores", 0,
       [](const Tensor& x) {
         const Tensor p = softmax(log(beside(x)), 0);
         return where(gt(x, 0.5), slice_axis(p, 0, 1, 2), 0.0);
       }},
      {"log_softmax of infinite scores", 0,
       [](const Tensor& x) {
         const Tensor p = log_softmax(log(beside(x)), 0);
         return where(gt(x, 0.5), slice_axis(p, 0, 1, 2), 0.0);
       }},
      {"x / norm", 0,
       [](const Tensor& x) {
         const Tensor norm = sqrt(sum(square(x), {0}, true));
         return where(gt(norm, 0.0), x / norm, 0.0);
       }},
      {"layer_norm without epsilon", 3,
       [](const Tensor& x) {
         return where(gt(x, 5.0), sum(layer_norm(concat({x, x}, 0), 0), {0}, true), 0.0);
       }},
      {"rms_norm without epsilon", 0,
       [](const Tensor& x) {
         return where(gt(x, 5.0), sum(rms_norm(concat({x, x}, 0), 0), {0}, true), 0.0);
       }},
      {"standard deviation of equal numbers", 3,
       [](const Tensor& x) {
         return where(gt(x, 5.0), sqrt(var(concat({x, x}, 0), {0}, true)), 0.0);
       }},
  };
  return list;
}

// The derivative of a function of [1], in either mode.
Function forward(const Function& f) {
  return [f](const Tensor& x) { return jvp(f, x, ones_like(x)).second; };
}
Function reverse(const Function& f) {
  return [f](const Tensor& x) {
    const auto [y, pull] = vjp(f, x);
    return std::get<0>(pull(ones_like(y)));
  };
}

void check_zero(const Function& f, double at, const std::string& what) {
  for (const Device& device : {reference(), cpu()})
    for (const DType dtype : {DType::f64, DType::f32}) {
      INFO(what << ", " << to_string(dtype) << " on " << device.name());
      const Tensor x = full({1}, at, dtype, device);
      CHECK(host_values(f(x)) == std::vector<double>{0});
      CHECK(host_values(compile(f)(x)) == std::vector<double>{0});
    }
}

}  // namespace

TEST_CASE("a branch not taken has derivative 0 in both modes", "[autograd][zero]") {
  for (const Branch& branch : branches()) {
    INFO(branch.name);
    check_zero(forward(branch.f), branch.at, "jvp");
    check_zero(reverse(branch.f), branch.at, "vjp");
  }
}

TEST_CASE("a branch not taken has second derivative 0 in every order of the modes",
          "[autograd][zero]") {
  for (const Branch& branch : branches()) {
    INFO(branch.name);
    check_zero(forward(forward(branch.f)), branch.at, "jvp of jvp");
    check_zero(forward(reverse(branch.f)), branch.at, "jvp of vjp");
    check_zero(reverse(forward(branch.f)), branch.at, "vjp of jvp");
    check_zero(reverse(reverse(branch.f)), branch.at, "vjp of vjp");
  }
}

TEST_CASE("a branch not taken has derivative 0 under vmap", "[autograd][zero]") {
  for (const Branch& branch : branches()) {
    INFO(branch.name);
    for (const Function& derivative : {forward(branch.f), reverse(branch.f)}) {
      const Tensor x = full({3, 1}, branch.at, DType::f64, cpu());
      CHECK(host_values(vmap(derivative)(x)) == std::vector<double>(3, 0));
    }
  }
}

TEST_CASE("logsumexp over nothing but -inf has gradient 0", "[autograd][zero]") {
  for (const Device& device : {reference(), cpu()}) {
    const Tensor x = full({2}, -inf, DType::f64, device);
    const Function f = [](const Tensor& x) { return logsumexp(x); };
    CHECK(host_values(f(x)) == std::vector<double>{-inf});
    CHECK(host_values(grad(f)(x)) == std::vector<double>{0, 0});
    CHECK(host_values(forward(f)(x)) == std::vector<double>{0});
    const Tensor partly = Tensor::from(std::vector<double>{-inf, 3}, {2}, device);
    CHECK(host_values(grad(f)(partly)) == std::vector<double>{0, 1});
  }
}

TEST_CASE("logsumexp over nothing but -inf is -inf, however many there are", "[autograd][zero]") {
  for (const Device& device : {reference(), cpu()})
    for (const DType dtype : {DType::f64, DType::f32})
      for (std::int64_t count = 1; count <= 100; ++count) {
        INFO(count << " in " << to_string(dtype) << " on " << device.name());
        // One row of numbers beside one of -inf.
        const Tensor row = iota({2, 1}, 0, dtype, device);
        const Tensor x = where(eq(broadcast_to(row, {2, count}), 0.0), -inf, 0.0 * row);
        const double some = std::log(static_cast<double>(count));
        for (const std::int64_t axis : {1, 0}) {
          const std::vector<double> got =
              host_values(axis == 1 ? logsumexp(x, {1}) : logsumexp(transpose(x, {1, 0}), {0}));
          CHECK(got[0] == -inf);
          CHECK(std::abs(got[1] - some) < 1e-5);
        }
      }
  for (const Device& device : {reference(), cpu()}) {
    const Tensor x = full({10, 4}, -inf, DType::f32, device);
    CHECK(host_values(logsumexp(x, {0})) == std::vector<double>(4, -inf));
    CHECK(host_values(grad([](const Tensor& x) { return sum(logsumexp(x, {0})); })(x)) ==
          std::vector<double>(40, 0));
    // Other values without an end stay what they are.
    CHECK(host_values(logsumexp(Tensor::from(std::vector<double>{inf, -inf}, {2}, device))) ==
          std::vector<double>{inf});
    CHECK(std::isnan(host_values(
        logsumexp(Tensor::from(std::vector<double>{std::nan(""), -inf}, {2}, device)))[0]));
  }
}

TEST_CASE("both modes agree beyond the range of exp", "[autograd][zero]") {
  const std::vector<Function> functions{[](const Tensor& x) { return log(exp(x)); },
                                        [](const Tensor& x) { return log(1.0 + exp(x)); },
                                        [](const Tensor& x) { return log1p(exp(x)); },
                                        [](const Tensor& x) { return 1.0 / exp(x); },
                                        [](const Tensor& x) { return sqrt(exp(x)); }};
  for (const Device& device : {reference(), cpu()}) {
    const Tensor x = full({1}, 1000, DType::f64, device);
    for (std::size_t i = 0; i < functions.size(); ++i) {
      CAPTURE(device.name(), i);
      const std::vector<double> slope = host_values(forward(functions[i])(x));
      CHECK(!std::isnan(slope[0]));
      CHECK(host_values(reverse(functions[i])(x)) == slope);
    }
  }
}

TEST_CASE("the extremum of a line with a NaN has no derivative in either mode",
          "[autograd][zero]") {
  for (const Device& device : {reference(), cpu()})
    for (const Function& f : {Function([](const Tensor& x) { return max(x); }),
                              Function([](const Tensor& x) { return min(x); })}) {
      const Tensor x = Tensor::from(std::vector<double>{std::nan(""), 1}, {2}, device);
      for (const double each : host_values(grad(f)(x))) CHECK(std::isnan(each));
      CHECK(std::isnan(host_values(forward(f)(x))[0]));
    }
}

TEST_CASE("only an exact zero wins over infinity", "[autograd][zero]") {
  const Device device = cpu();
  const Function root = [](const Tensor& x) { return sqrt(x); };
  const Tensor zero = full({1}, 0, DType::f64, device);
  CHECK(host_values(forward(root)(zero)) == std::vector<double>{inf});
  CHECK(host_values(reverse(root)(zero)) == std::vector<double>{inf});
  // NaN goes on where it is multiplied with anything but 0.
  const Function scaled_root = [](const Tensor& x) { return 1e-300 * sqrt(x); };
  const Tensor negative = full({1}, -1, DType::f64, device);
  CHECK(std::isnan(host_values(forward(scaled_root)(negative))[0]));
  CHECK(std::isnan(host_values(reverse(scaled_root)(negative))[0]));
}

TEST_CASE("0 wins over infinity and NaN in strong products, alone and in chains", "[cpu][zero]") {
  const std::vector<double> specials{0, -0.0, 1, -2, inf, -inf, std::nan(""), 0x1p-100};
  for_each_target([&](const char* target) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      std::vector<double> a, b;
      for (const double x : specials)
        for (const double y : specials) a.push_back(x), b.push_back(y);
      // More than a chain takes at once, and a rest.
      for (std::size_t i = 0; i < 200; ++i) a.push_back(a[i % 64]), b.push_back(b[(7 * i) % 64]);
      const Shape shape{static_cast<std::int64_t>(a.size())};
      const auto on = [&](const Device& device, const std::vector<double>& values) {
        return to_tensor({shape, DType::f64, values}, device, dtype);
      };
      const auto f = [](const Tensor& x, const Tensor& y) {
        const Tensor product = strong_mul(x, y);
        return std::tuple(product, strong_div(x, y), strong_mul(product + y, x) - x);
      };
      const Device device = cpu(), plain = reference();
      const auto got = compile(f)(on(device, a), on(device, b)),
                 wanted = compile(f)(on(plain, a), on(plain, b));
      const std::vector<double> product = host_values(std::get<0>(got)),
                                quotient = host_values(std::get<1>(got)),
                                chain = host_values(std::get<2>(got)),
                                same = host_values(std::get<2>(wanted));
      std::size_t wrong = 0;
      const auto rounded = [&](double x) {
        return dtype == DType::f32 ? static_cast<double>(static_cast<float>(x)) : x;
      };
      const auto differ = [](double x, double y) { return x != y && !(x != x && y != y); };
      for (std::size_t i = 0; i < a.size(); ++i)
        wrong += differ(product[i], a[i] == 0 || b[i] == 0 ? 0 : rounded(a[i] * b[i])) ||
                 differ(quotient[i], a[i] == 0 || std::isinf(b[i]) ? 0 : rounded(a[i] / b[i])) ||
                 differ(chain[i], same[i]);
      INFO(target << ", " << to_string(dtype));
      CHECK(wrong == 0);
    }
  });
}
