// Reverse mode is forward mode, transposed.
//
// A linear function from R^n to R^m is a matrix J, whether or not anybody writes the matrix down.
// Its transpose J' goes the other way, and is the one linear function with <u, J v> = <J' u, v> for
// all u and v. linear_transpose finds it by walking the graph of the function from its result to
// its argument: where the function copies, the transpose adds up, where it adds up, it copies, and
// where it multiplies by a matrix, it multiplies by the transposed one.
//
// The derivative of any function at a point is linear in its tangent. So forward mode, transposed,
// maps cotangents of the result to cotangents of the argument: that is backpropagation.
#include <cmath>
#include <cstdio>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"

using namespace fluxion;

namespace {

double inner(const Tensor& a, const Tensor& b) { return sum(a * b).item<double>(); }

void print(const char* name, const Tensor& x) {
  std::printf("  %-28s", name);
  for (const double value : x.to_host<double>()) std::printf(" %9.5f", value);
  std::printf("\n");
}

// Prints both sides; whether they agree.
bool same(const char* left, double a, const char* right, double b) {
  std::printf("  %s = %.12f\n  %s = %.12f\n", left, a, right, b);
  return std::abs(a - b) <= 1e-12 * (1 + std::abs(a));
}

}  // namespace

int main() {
  const Device device = cpu();
  const Tensor key = random_key(1, device);
  const Tensor v = normal(fold_in(key, 0), {5}, DType::f64),
               u = normal(fold_in(key, 1), {4}, DType::f64);
  bool good = true;

  std::printf("A linear function: differences of neighbours, each scaled\n");
  const Tensor scale = Tensor::from(std::vector<double>{1, 2, 3, 4}, {4}, device);
  const auto differences = [&](const Tensor& x) {
    return scale * (slice_axis(x, 0, 1, 5) - slice_axis(x, 0, 0, 4));
  };
  const auto transposed = linear_transpose(differences, v);
  print("J v", differences(v));
  print("J' u", transposed(u));
  good &= same("<u, J v>", inner(u, differences(v)), "<J' u, v>", inner(transposed(u), v));

  std::printf("\nA curved function has no transpose, and says so\n");
  const auto curved = [](const Tensor& x) { return sin(x) * sum(square(x)); };
  try {
    linear_transpose(curved, v)(v);
    good = false;
  } catch (const Error& error) {
    std::printf("  %s\n", error.what());
  }

  std::printf("\nbut its derivative at a point is linear, and has one: vjp\n");
  const Tensor x = normal(fold_in(key, 2), {5}, DType::f64),
               w = normal(fold_in(key, 3), {5}, DType::f64);
  const Tensor forward = jvp(curved, x, v).second;
  const auto [y, pull] = vjp(curved, x);
  const auto [backward] = pull(w);
  good &= same("<w, J(x) v>", inner(w, forward), "<J(x)' w, v>", inner(backward, v));

  std::printf("\nvjp is the transpose of jvp: the same numbers, put together by hand\n");
  const auto [value, linear] = linearize(curved, x);  // v -> J(x) v, any number of times
  const auto derivative = [&, map = linear](const Tensor& tangent) {
    return map(std::tuple(tangent));
  };
  const Tensor by_hand = linear_transpose(derivative, x)(w);
  print("vjp", backward);
  print("linear_transpose(linearize)", by_hand);
  const double difference = max(abs(backward - by_hand)).item<double>();
  std::printf("  largest difference: %.1e\n", difference);
  return good && difference < 1e-13 ? 0 : 1;
}
