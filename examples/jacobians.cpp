// Whole Jacobians, functions of one example mapped over many, and traces of Jacobians that are
// never written down.
#include <cmath>
#include <cstdio>

#include "autograd/divergence.h"
#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"

using namespace fluxion;

namespace {

void print(const char* name, const Tensor& x) {
  std::printf("%-44s", name);
  for (const double value : x.to_host<double>()) std::printf(" %8.4f", value);
  std::printf("\n");
}

double largest_difference(const Tensor& a, const Tensor& b) {
  const double largest = max(abs(a - b)).item<double>();
  return std::isnan(largest) ? HUGE_VAL : largest;  // std::max forgets a NaN
}

}  // namespace

int main() {
  const Device device = cpu();
  double worst = 0;  // of everything that should agree with something else
  const auto agree = [&](const Tensor& a, const Tensor& b) {
    worst = std::max(worst, largest_difference(a, b));
  };

  // From polar to Cartesian coordinates: (r cos a, r sin a). Forward mode has the Jacobian in one
  // pass over two unit tangents, reverse mode in one pass over two unit cotangents, and the
  // determinant is r.
  const auto cartesian = [](const Tensor& polar) {
    const Tensor r = slice_axis(polar, 0, 0, 1), a = slice_axis(polar, 0, 1, 2);
    return concat({r * cos(a), r * sin(a)}, 0);
  };
  const Tensor point = Tensor::from(std::vector<double>{2, 0.5}, {2}, device);
  const Tensor J = jacfwd(cartesian, point);
  agree(J, jacrev(cartesian, point));
  const std::vector<double> j = J.to_host<double>();
  print("Jacobian of (r cos a, r sin a) at (2, 0.5)", J);
  std::printf("%-44s %8.4f\n", "its determinant, r", j[0] * j[3] - j[1] * j[2]);
  worst = std::max(worst, std::abs(j[0] * j[3] - j[1] * j[2] - 2));

  // The function knows nothing of batches; vmap gives it one. Here: a Jacobian for each of three
  // points.
  const Tensor points = Tensor::from(std::vector<double>{1, 0, 2, 0.5, 3, 1}, {3, 2}, device);
  const Tensor each = vmap([&](const Tensor& x) { return jacfwd(cartesian, x); })(points);
  print("the same for three points, [3, 2, 2]", each);
  agree(reshape(slice_axis(each, 0, 1, 2), {2, 2}), J);

  // Second derivatives. Rosenbrock's valley: 100 (y - x^2)^2 + (1 - x)^2, Hessian [[802, -400],
  // [-400, 200]] at its minimum (1, 1).
  const auto valley = [](const Tensor& p) {
    const Tensor x = slice_axis(p, 0, 0, 1), y = slice_axis(p, 0, 1, 2);
    return sum(100.0 * square(y - square(x)) + square(1.0 - x));
  };
  const Tensor H = hessian(valley, Tensor::from(std::vector<double>{1, 1}, {2}, device));
  print("Hessian of Rosenbrock's valley at (1, 1)", H);
  agree(H, Tensor::from(std::vector<double>{802, -400, -400, 200}, {2, 2}, device));

  // A gradient of each example's loss, not of their sum: the loss is of one example, and not_mapped
  // says that all share the weights.
  const Tensor key = random_key(0, device),
               weights = normal(fold_in(key, 1), {4, 4}, DType::f64) * 0.5;
  const Tensor batch = normal(fold_in(key, 2), {3, 4}, DType::f64);
  const auto loss = [](const Tensor& w, const Tensor& x) {
    return sum(square(tanh(matmul(reshape(x, {1, 4}), w))));
  };
  const Tensor gradients = vmap(grad(loss), {not_mapped, 0})(weights, batch);
  print("length of each example's gradient", sqrt(sum(square(gradients), {1, 2})));
  const auto mean_loss = [&](const Tensor& w) {
    return mean(vmap(loss, {not_mapped, 0})(w, batch));
  };
  agree(mean(gradients, {0}), grad(mean_loss)(weights));

  // The divergence of a field of independent rows, as the likelihood of a flow needs it: exact from
  // one tangent per dimension, estimated from a few random ones. Every tangent of every row goes
  // through the field together, on top of one evaluation.
  const Field field = [&](const Tensor& x) { return tanh(matmul(x, weights)); };
  const Tensor exact = divergence(field, batch).divergence;
  print("divergence at each of three points", exact);
  print("Hutchinson's estimate from 64 probes",
        hutchinson(field, batch, rademacher_probes(fold_in(key, 3), batch, 64)).divergence);
  // Hutch++ with a sketch of as many vectors as there are dimensions has nothing left to estimate.
  const Tensor sketch = gaussian_probes(fold_in(key, 4), batch, 4),
               probes = rademacher_probes(fold_in(key, 5), batch, 4);
  const Tensor sketched = hutch_plus_plus(field, batch, sketch, probes).divergence;
  print("Hutch++ with a sketch of 4 vectors", sketched);
  agree(sketched, exact);

  std::printf("%-44s %.1e\n", "largest disagreement", worst);
  return worst < 1e-9 ? 0 : 1;
}
