// Graphs whose plans once took minutes: the work of planning grows with the graph, not with the
// number of pairs or paths in it. What fails here is the limit that ctest gives a test.
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

Tensor four(const Shape& shape) {
  static const Device device = cpu();
  return Tensor::from<double>(std::vector<double>{.1, .2, .3, .4}, shape, device);
}

// By one place to the left: a graph of n turns has 2^n ways down to x.
Tensor turned(Tensor x, int times) {
  for (int i = 0; i < times; ++i) x = concat({slice_axis(x, 0, 1, 4), slice_axis(x, 0, 0, 1)}, 0);
  return x;
}

}  // namespace

TEST_CASE("layers that share a weight are planned in good time", "[engine][plan]") {
  const Tensor x = four({2, 2}), w = four({2, 2});
  const auto f = [&](const Tensor& w) {
    Tensor y = x;
    for (int i = 0; i < 400; ++i) y = tanh(matmul(layer_norm(y, 1e-3), w)) * 0.01 + y;
    return sum(y);
  };
  const Program program = compile(grad(f)).program(w);
  CHECK(program.kernels.size() > 800);  // every layer's product waits for the one before, both ways
}

TEST_CASE("views of views of shared pieces are planned in good time", "[engine][plan]") {
  const Tensor x = four({4});
  // 42 turns of four places are two.
  CHECK(turned(x, 42).to_host<double>() == std::vector<double>{.3, .4, .1, .2});
  const auto f = [](const Tensor& x) { return sum(turned(x, 42) * x * x); };
  const auto plain = [](const Tensor& x) { return sum(turned(x, 2) * x * x); };
  CHECK(compile(grad(f))(x).to_host<double>() == grad(plain)(x).to_host<double>());
  // What waits for such a value, and such a value that waits.
  const auto kept = [](const Tensor& x) {
    return sum(checkpoint([](const Tensor& h) { return sin(exp(h)); })(turned(sin(x), 42)));
  };
  const auto short_kept = [](const Tensor& x) { return sum(sin(exp(turned(sin(x), 2)))); };
  CHECK(compile(grad(kept))(x).to_host<double>() == compile(grad(short_kept))(x).to_host<double>());
  const Tensor waiting =
      make_node(Op::after, NoAttributes{}, {turned(sin(x), 40), turned(cos(x), 40)});
  CHECK(waiting.to_host<double>() == sin(x).to_host<double>());
}

TEST_CASE("long chains of elementwise operators are planned in good time", "[engine][plan]") {
  const auto f = [](const Tensor& x) {
    Tensor y = x;
    for (int block = 0; block < 50; ++block) {
      const Tensor h = y;
      for (int i = 0; i < 50; ++i) y = sin(y) * h;
    }
    return sum(y);
  };
  const Program program = compile(grad(f)).program(four({4}));
  CHECK(program.kernels.size() > 50);
}
