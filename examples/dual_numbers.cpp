// Forward mode by hand, and then by jvp: a dual number carries a value and its rate of change
// through every operation.
//
// A dual number is a + b e with e^2 = 0. Arithmetic with such numbers is all of forward mode: in (a
// + b e)(c + d e) = ac + (ad + bc) e the part behind e is the product rule, and f(a + b e) = f(a) +
// f'(a) b e is the chain rule. jvp does the same, except that its numbers are tensors, and that the
// two parts become two graphs, so that the second can be differentiated again.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"

namespace {

// ---- all of forward mode for numbers

struct Dual {
  double value = 0;   // a: the primal
  double change = 0;  // b: the tangent, how fast the primal changes
};

Dual operator+(Dual x, Dual y) { return {x.value + y.value, x.change + y.change}; }
Dual operator-(Dual x, Dual y) { return {x.value - y.value, x.change - y.change}; }
Dual operator*(Dual x, Dual y) {
  return {x.value * y.value, x.change * y.value + x.value * y.change};
}
Dual operator/(Dual x, Dual y) {
  const double quotient = x.value / y.value;
  return {quotient, (x.change - quotient * y.change) / y.value};
}
Dual sin(Dual x) { return {std::sin(x.value), std::cos(x.value) * x.change}; }
Dual exp(Dual x) { return {std::exp(x.value), std::exp(x.value) * x.change}; }
Dual tanh(Dual x) {
  const double y = std::tanh(x.value);
  return {y, (1 - y * y) * x.change};
}

// ---- one function, for both: written once, for anything that has these operations

template <class Number>
Number f(const Number& x) {
  return (sin(x) * exp(x) - x) / (x * x + exp(tanh(x)));
}

}  // namespace

int main() {
  using namespace fluxion;
  const Device device = cpu();
  const std::vector<double> points = {-1.5, -0.2, 0.4, 2.0};

  // By jvp: all points at once. A tangent of ones asks for df/dx at each of them.
  const Tensor x = Tensor::from(points, {4}, device);
  const auto [y, dy] =
      jvp([](const Tensor& x) { return f(x); }, std::tuple(x), std::tuple(ones_like(x)));
  const std::vector<double> values = y.to_host<double>(), changes = dy.to_host<double>();

  std::printf("      x      f by dual numbers    f by jvp     f' by dual numbers   f' by jvp\n");
  double largest = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const Dual by_hand = f(Dual{points[i], 1});
    std::printf("%7.2f  %18.12f %18.12f %18.12f %18.12f\n", points[i], by_hand.value, values[i],
                by_hand.change, changes[i]);
    for (const double off : {by_hand.value - values[i], by_hand.change - changes[i]})
      largest = std::isnan(off) ? HUGE_VAL : std::max(largest, std::abs(off));
  }
  std::printf("largest difference: %.1e\n", largest);

  // What dual numbers can't do: jvp of a jvp is the second derivative, because a tangent is an
  // ordinary tensor.
  const auto slope = [](const Tensor& x) {
    return jvp([](const Tensor& x) { return f(x); }, std::tuple(x), std::tuple(ones_like(x)))
        .second;
  };
  const Tensor curvature = jvp(slope, x, ones_like(x)).second;
  const double h = 1e-4;
  double error = 0;
  const std::vector<double> second = curvature.to_host<double>();
  for (std::size_t i = 0; i < points.size(); ++i) {
    const double difference =
        (f(Dual{points[i] + h, 1}).change - f(Dual{points[i] - h, 1}).change) / (2 * h);
    const double off = std::abs(second[i] - difference);
    error = std::isnan(off) ? HUGE_VAL : std::max(error, off);
  }
  std::printf("f'' by jvp of jvp, against the difference of slopes: %.1e\n", error);
  return largest < 1e-13 && error < 1e-6 ? 0 : 1;
}
