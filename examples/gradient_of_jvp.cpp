// The gradient of a loss that contains a JVP: what generative flows ask of autodiff.
//
// A flow map X(z, t, r) takes a point z at time t to where the flow has it at time r; a network u,
// the average velocity on the way, gives it as X = z - (t - r) u(z, t, r). That X solves the flow
// of its own velocity means that its end moves with the velocity there,
//
//   dX/dr = u(X, r, r),
//
// and the Lagrangian loss of flow maps is the squared difference of both sides. dX/dr is a JVP
// along r; training needs its gradient in the parameters, so reverse mode runs over forward mode.
// Here that gradient is checked, parameter by parameter, against differences of the loss.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"

using namespace fluxion;

namespace {

// A tiny network: two features of (z, t, r) to eight hidden ones and back. The parameters are one
// struct; transforms take it whole.
struct Network {
  Tensor in, times, bias, out;  // [8, 2], [8, 2], [8], [2, 8]
  static auto members(auto& self) { return std::tie(self.in, self.times, self.bias, self.out); }

  // z [batch, 2], t and r [batch] -> [batch, 2]
  Tensor operator()(const Tensor& z, const Tensor& t, const Tensor& r) const {
    const Tensor both = concat({expand_dims(t, 1), expand_dims(r, 1)}, 1);
    const Tensor hidden =
        matmul(z, swap_axes(in, 0, 1)) + matmul(both, swap_axes(times, 0, 1)) + bias;
    return matmul(silu(hidden), swap_axes(out, 0, 1));
  }
};

Tensor loss(const Network& u, const Tensor& z, const Tensor& t, const Tensor& r) {
  const auto map = [&](const Tensor& r) { return z - expand_dims(t - r, 1) * u(z, t, r); };
  const auto [end, speed] = jvp(map, r, ones_like(r));  // X and dX/dr
  return mean(square(speed - u(end, r, r)));
}

}  // namespace

int main() {
  const Device device = cpu();
  const Tensor key = random_key(5, device);
  const auto draw = [&](std::uint32_t number, const Shape& shape) {
    return 0.5 * normal(fold_in(key, number), shape, DType::f64);
  };
  Network network{draw(0, {8, 2}), draw(1, {8, 2}), draw(2, {8}), draw(3, {2, 8})};
  const Tensor z = draw(4, {6, 2}), t = full({6}, 0.9, DType::f64, device),
               r = full({6}, 0.2, DType::f64, device);

  // The loss, its JVP and the gradient of that are one graph, compiled once.
  const auto step = compile([](const Network& u, const Tensor& z, const Tensor& t,
                               const Tensor& r) { return value_and_grad(loss)(u, z, t, r); });
  const auto [value, gradient] = step(network, z, t, r);
  std::printf("loss %.12f, its gradient in %lld kernels\n", value.item<double>(),
              static_cast<long long>(step.memory_report(network, z, t, r).kernels));

  // Each entry of each parameter, moved by +-h: fourth-order central differences of the loss.
  const auto evaluate = compile(loss);
  const char* names[] = {"in", "times", "bias", "out"};
  double largest = 0;
  std::size_t member = 0;
  for (Tensor Network::*parameter :
       {&Network::in, &Network::times, &Network::bias, &Network::out}) {
    const std::vector<double> original = (network.*parameter).to_host<double>(),
                              derivative = (gradient.*parameter).to_host<double>();
    double worst = 0;
    for (std::size_t i = 0; i < original.size(); ++i) {
      const auto moved = [&](double by) {
        Network changed = network;
        std::vector<double> values = original;
        values[i] += by;
        changed.*parameter = Tensor::from(values, (network.*parameter).shape(), device);
        return evaluate(changed, z, t, r).template item<double>();
      };
      const double h = 1e-3;
      const double difference =
          (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
      const double off = std::abs(difference - derivative[i]);
      worst = std::isnan(off) ? HUGE_VAL : std::max(worst, off);
    }
    std::printf("  %-6s %2zu derivatives, largest distance from differences %.1e\n",
                names[member++], original.size(), worst);
    largest = std::max(largest, worst);
  }

  // A step against the gradient lowers the loss.
  const Network after =
      zip_tree(network, gradient, [](const Tensor& p, const Tensor& g) { return p - 0.1 * g; });
  const double lower = evaluate(after, z, t, r).item<double>();
  std::printf("loss after a step against it: %.12f\n", lower);
  return largest < 1e-9 && lower < value.item<double>() ? 0 : 1;
}
