// What transforms take and return: containers of tensors, references, and what is none.
#include <cmath>
#include <limits>

#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const Device& tree_device() {
  static const Device device = cpu({.threads = 1});
  return device;
}
Tensor tree_values(const std::vector<double>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())}, tree_device());
}

}  // namespace

TEST_CASE("maps of any order are trees", "[autograd][tree]") {
  using Ordered = std::map<std::string, Tensor, std::less<>>;
  const std::pair<Tensor, Ordered> at{tree_values({1, 2, 3}), {{"a", tree_values({1, 2, 3})}}};
  const auto f = [](const std::pair<Tensor, Ordered>& p) {
    return sum(p.first * square(p.second.at("a")));
  };
  const auto slope = grad(f)(at);
  CHECK(slope.first.to_host<double>() == std::vector<double>{1, 4, 9});
  CHECK(slope.second.at("a").to_host<double>() == std::vector<double>{2, 8, 18});
}

TEST_CASE("a function may return a reference to its argument", "[autograd][tree]") {
  const auto same = [](const Tensor& x) -> const Tensor& { return x; };
  const Tensor x = tree_values({1, 2}), dx = tree_values({3, 4});
  const std::vector<double> value{1, 2}, tangent{3, 4};
  const auto [y, dy] = jvp(same, x, dx);
  CHECK(y.to_host<double>() == value);
  CHECK(dy.to_host<double>() == tangent);
  CHECK(std::get<0>(vjp(same, x).second(dx)).to_host<double>() == tangent);
  CHECK(linearize(same, x).second(std::tuple(dx)).to_host<double>() == tangent);
  CHECK(linear_transpose(same, x)(dx).to_host<double>() == tangent);
  CHECK(vmap(same)(x).to_host<double>() == value);
  const auto compiled = compile(same);
  CHECK(compiled(x).to_host<double>() == value);
  CHECK(compiled.run({}, x).to_host<double>() == value);
  CHECK(compiled.memory_report(x).input_bytes == 16);
  const Tensor one = tree_values({5});
  CHECK(grad(same)(one).to_host<double>() == std::vector<double>{1});
}

TEST_CASE("hvp takes a tuple as one argument", "[autograd][tree]") {
  using Two = std::tuple<Tensor, Tensor>;
  const auto f = [](const Two& p) { return sum(square(std::get<0>(p)) * std::get<1>(p)); };
  const Two at{tree_values({2}), tree_values({3})}, along{tree_values({1}), tree_values({10})};
  // f = a^2 b: the Hessian is {{2 b, 2 a}, {2 a, 0}}.
  const Two product = hvp(f, at, along);
  CHECK(std::get<0>(product).item<double>() == 46);
  CHECK(std::get<1>(product).item<double>() == 4);
}

TEST_CASE("numbers beside tensors are told apart by their bits", "[engine][tree]") {
  const auto scaled = compile([](const Tensor& x, double by) { return x * by; });
  const Tensor x = tree_values({1});
  CHECK_FALSE(std::signbit(scaled(x, 0.0).item<double>()));
  CHECK(std::signbit(scaled(x, -0.0).item<double>()));
  CHECK(scaled.traces() == 2);
  const double none = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(scaled(x, none).item<double>()));
  CHECK(std::isnan(scaled(x, none).item<double>()));
  CHECK(scaled.traces() == 3);
}

TEST_CASE("an empty tensor in a compiled result is refused by its number", "[engine][tree]") {
  const auto f = compile([](const Tensor& x) { return std::pair(x * 2.0, Tensor()); });
  CHECK_THAT(message_of([&] { f(tree_values({1})); }),
             has_text("tensor 1 of the function's result holds no tensor"));
}
