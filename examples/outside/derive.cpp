// The derivative of a function along a direction, and its gradient.
#include <fluxion/autograd/transforms.h>
#include <fluxion/backends/cpu/cpu.h>
#include <fluxion/engine/graph/ops.h>

#include <cstdio>
#include <vector>

using namespace fluxion;

int main() {
  const Device device = cpu();
  const auto f = [](const Tensor& x) { return sum(x * x * x); };
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3}, {3}, device),
               direction = Tensor::from(std::vector<float>{1, 0, -1}, {3}, device);

  const auto [value, change] = jvp(f, x, direction);
  const std::vector<float> gradient = grad(f)(x).to_host<float>();
  std::printf("f = %g, f' along the direction = %g, gradient = (%g, %g, %g)\n", value.item<float>(),
              change.item<float>(), gradient[0], gradient[1], gradient[2]);
}
