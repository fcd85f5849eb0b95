// Holes: empty axes, trees with places that hold no tensor, and graphs that die.
#include <array>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/custom.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"

using namespace fluxion;

using Two = std::array<Tensor, 2>;

TEST_CASE("the maximum over nothing is a constant", "[autograd]") {
  const Device device = reference();
  const Tensor x = zeros({0, 3}, DType::f64, device);
  const auto f = [](const Tensor& x) { return maximum(max(x, {0}), 0.0); };
  const auto [y, dy] = jvp(f, std::tuple{x}, std::tuple{zeros({0, 3}, DType::f64, device)});
  CHECK(y.to_host<double>() == std::vector<double>{0, 0, 0});
  CHECK(dy.to_host<double>() == std::vector<double>{0, 0, 0});
  const Tensor w = ones_like(zeros({3}, DType::f64, device));
  const auto mixed = [&](const Tensor& w, const Tensor& x) { return sum(w + f(x)); };
  CHECK(jvp(mixed, std::tuple{w, x}, std::tuple{w, x}).second.item<double>() == 3);
}

TEST_CASE("a place that holds no tensor has no derivative", "[autograd]") {
  const Tensor x = full({2}, 3, DType::f64, reference());
  const auto loss = [](const Two& p) { return sum(square(std::get<0>(p))); };
  const Two gradient = grad(loss)(Two{x, Tensor()});
  CHECK(std::get<0>(gradient).to_host<double>() == std::vector<double>{6, 6});
  CHECK(!std::get<1>(gradient));

  const auto [y, pull] = vjp([](const Tensor& x) { return Two{x * 2.0, Tensor()}; }, x);
  CHECK(std::get<0>(pull(Two{x, Tensor()})).to_host<double>() == std::vector<double>{6, 6});
  const auto [value, tangent] = jvp([](const Two& p) { return p; }, std::tuple{Two{x, Tensor()}},
                                    std::tuple{Two{x, Tensor()}});
  CHECK(std::get<0>(tangent).to_host<double>() == std::vector<double>{3, 3});
  CHECK_THROWS_WITH(
      jvp([](const Two& p) { return p; }, std::tuple{Two{x, Tensor()}}, std::tuple{Two{x, x}}),
      Catch::Contains("holds no tensor"));
  const auto compiled = compile([](const Two& p) { return p; })(Two{x, Tensor()});
  CHECK(std::get<0>(compiled).to_host<double>() == std::vector<double>{3, 3});
  CHECK(!std::get<1>(compiled));
}

TEST_CASE("a long chain of rules that hold one another's results dies without recursion",
          "[autograd][regions]") {
  Tensor h = full({}, 0.5, DType::f64, reference());
  for (int i = 0; i < 30000; ++i)
    h = custom_jvp([](const Tensor& x) { return x * 1.0; },
                   [h](const std::tuple<Tensor>&, const std::tuple<Tensor>& t) {
                     return std::get<0>(t) * h;
                   })(h);
  h = Tensor();
  SUCCEED();
}
