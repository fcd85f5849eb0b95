// Forward mode, reverse mode, and one inside the other: transforms are functions of functions and
// nest in any order.
#include <cstdio>

#include "autograd/check.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"

using namespace fluxion;

namespace {

void print(const char* name, const Tensor& x) {
  std::printf("%-34s", name);
  for (const double value : x.to_host<double>()) std::printf(" %9.6f", value);
  std::printf("\n");
}

}  // namespace

int main() {
  const Device device = cpu();
  const Tensor x = Tensor::from(std::vector<double>{0.5, -1.0, 2.0}, {3}, device);
  const Tensor direction = Tensor::from(std::vector<double>{1, 0, 1}, {3}, device);
  const auto f = [](const Tensor& x) { return sin(x) * sum(square(x)); };

  // Forward mode: the value of f and its derivative along a direction, in one pass and without a
  // tape.
  const auto [y, along] = jvp(f, x, direction);
  print("f(x)", y);
  print("J d", along);

  // Reverse mode: the same Jacobian, transposed. <w, J d> = <J' w, d> for any w.
  const Tensor weights = ones_like(y);
  const auto [same, pull] = vjp(f, x);
  const auto [back] = pull(weights);
  print("J' w", back);
  std::printf("%-34s %9.6f = %.6f\n", "<w, J d> = <J' w, d>", sum(weights * along).item<double>(),
              sum(back * direction).item<double>());

  // The gradient of a function that contains a derivative, as objectives with a velocity's rate of
  // change need it.
  const auto speed = [&](const Tensor& x) { return sum(square(jvp(f, x, direction).second)); };
  print("gradient of |J d|^2", grad(speed)(x));

  // A Hessian times a vector is forward mode over reverse mode.
  const auto energy = [&](const Tensor& x) { return sum(f(x)); };
  print("Hessian of sum f, times d", hvp(energy, x, direction));

  // The tool that checks every op of this project checks your functions too.
  const DerivativeCheck check = check_derivatives(
      [&](const std::vector<Tensor>& inputs) {
        return std::vector<Tensor>{grad(speed)(inputs[0])};
      },
      {x});
  std::printf("%-34s %s (error %.1e)\n", "checked against differences",
              check.passed ? "passed" : check.message.c_str(), check.jvp_error);
  return check.passed ? 0 : 1;
}
