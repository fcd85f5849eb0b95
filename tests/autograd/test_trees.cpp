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

TEST_CASE("empty places pass through compiled functions", "[engine][tree]") {
  using Three = std::array<Tensor, 3>;
  const Tensor x = tree_values({1, 2}), y = tree_values({3, 4}), none;
  const std::vector<double> twice{2, 4}, sum{4, 6};
  // Of the result.
  const auto f = compile([](const Tensor& x) { return Three{Tensor(), x * 2.0, Tensor()}; });
  for (int call = 0; call < 2; ++call) {
    const Three result = f(x);
    CHECK(!result[0]);
    CHECK(result[1].to_host<double>() == twice);
    CHECK(!result[2]);
  }
  // Of the arguments: they are part of the signature.
  const auto g = compile([](const Three& p) {
    Tensor total;
    for (const Tensor& each : p)
      if (each) total = total ? total + each : each * 1.0;
    return std::pair(total, p[2]);
  });
  CHECK(g(Three{x, none, y}).first.to_host<double>() == sum);
  CHECK(g(Three{none, x, y}).first.to_host<double>() == sum);
  CHECK(g.last_trace_reason() == "other places of the arguments are empty");
  const auto [total, last] = g(Three{x, y, none});
  CHECK(total.to_host<double>() == sum);
  CHECK(!last);
  CHECK(g.traces() == 3);
  CHECK(g(Three{y, none, none}).first.to_host<double>() == std::vector<double>{3, 4});
  CHECK(g.last_trace_reason() == "1 argument tensors, were 2");
  g(Three{x, none, y});
  CHECK(g.traces() == 4);
  // What a transform takes and gives, with the same places.
  const auto slope = grad([&](const Three& p) { return fluxion::sum(square(g(p).first)); });
  const Three plain = slope(Three{none, x, none}), compiled = compile(slope)(Three{none, x, none});
  CHECK(!compiled[0]);
  CHECK(compiled[1].to_host<double>() == twice);
  CHECK(plain[1].to_host<double>() == twice);
  CHECK(!compiled[2]);
  eval_tree(slope(Three{none, x, y}));
  // Integers have no cotangent.
  const auto pulled = compile([](const std::pair<Tensor, Tensor>& p, const Tensor& u) {
    return vjp([](const std::pair<Tensor, Tensor>& q) { return take(q.first, q.second, 0); }, p)
        .second(u);
  });
  const Tensor second = Tensor::from(std::vector<std::int32_t>{1}, {1}, tree_device());
  const auto [back] = pulled(std::pair(x, second), tree_values({5}));
  CHECK(back.first.to_host<double>() == std::vector<double>{0, 5});
  CHECK(!back.second);
  // Donated arguments are counted without them.
  const auto h = compile([](const Three& p, const Tensor& x) { return p[1] + x; }, {.donate = {1}});
  const Tensor given = tree_values({1, 1});
  CHECK(h(Three{none, x, none}, given).to_host<double>() == std::vector<double>{2, 3});
  CHECK_THROWS_WITH(given.to_host<double>(), has_text("donated"));
  CHECK(x.to_host<double>() == std::vector<double>{1, 2});
  // Nothing at all is a mistake.
  CHECK_THAT(message_of([&] { compile([](const Tensor&) { return Tensor(); })(x); }),
             has_text("the function returned no tensor"));
}
