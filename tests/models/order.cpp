// Sorting, products along axes and einsum against plain loops.
#include "models/layers/order.h"

#include <cmath>
#include <limits>
#include <map>

#include "autograd/check.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/layers/einsum.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Values = std::vector<double>;

Tensor row(const Values& values, const Device& device) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())}, device);
}

// The definition: for every value of every letter, a product; summed into the result.
HostValue summed_products(const std::string& equation, const std::vector<HostValue>& operands) {
  const std::string result = equation.substr(equation.find("->") + 2);
  std::vector<std::string> names{""};
  for (const char each : equation.substr(0, equation.find("->")))
    if (each == ',')
      names.emplace_back();
    else
      names.back() += each;
  std::map<char, std::int64_t> sizes, at;
  for (std::size_t i = 0; i < operands.size(); ++i)
    for (std::size_t k = 0; k < names[i].size(); ++k)
      if (auto& size = sizes.emplace(names[i][k], 1).first->second; size == 1)
        size = operands[i].shape[static_cast<std::int64_t>(k)];
  // Along an axis of size 1, all elements are the first.
  const auto position = [&](const std::string& axes, const Shape& shape) {
    std::int64_t number = 0;
    for (std::size_t k = 0; k < axes.size(); ++k) {
      const std::int64_t size = shape[static_cast<std::int64_t>(k)];
      number = number * size + (size == 1 ? 0 : at[axes[k]]);
    }
    return static_cast<std::size_t>(number);
  };
  HostValue total;
  Dims shape;
  for (const char axis : result) shape.push_back(sizes[axis]);
  total.shape = Shape(shape);
  total.values.assign(static_cast<std::size_t>(total.shape.elements()), 0);
  const std::function<void(std::map<char, std::int64_t>::iterator)> loop = [&](auto axis) {
    if (axis == sizes.end()) {
      double product = 1;
      for (std::size_t i = 0; i < operands.size(); ++i)
        product *= operands[i].values[position(names[i], operands[i].shape)];
      total.values[position(result, total.shape)] += product;
      return;
    }
    for (std::int64_t i = 0; i < axis->second; ++i) {
      at[axis->first] = i;
      loop(std::next(axis));
    }
  };
  loop(sizes.begin());
  return total;
}

}  // namespace

TEST_CASE("sort puts NaN last in either direction and keeps the order of equal values",
          "[models][order]") {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  for (const Device& device : {cpu(), reference()})
    for (const DType dtype : {DType::f32, DType::f64}) {
      const Tensor x =
          convert(row({0.0, nan, -0.0, 3, -infinity, nan, 3, infinity, -1}, device), dtype);
      CHECK(host_values(argsort(x, 0)) == Values{4, 8, 0, 2, 3, 6, 7, 1, 5});
      CHECK(host_values(argsort(x, -1, true)) == Values{7, 3, 6, 0, 2, 8, 4, 1, 5});
      const TopK best = topk(x, 3, 0);
      CHECK(host_values(best.values) == Values{infinity, 3, 3});
      CHECK(host_values(best.indices) == Values{7, 3, 6});
    }
  const Device device = cpu();
  CHECK(sort(zeros({3, 0}, DType::f32, device), 1).shape() == Shape{3, 0});
  CHECK(host_values(argsort(row({5}, device), 0)) == Values{0});
  CHECK(topk(row({5, 6}, device), 0, 0).values.shape() == Shape{0});
  CHECK_THROWS_AS(argsort(row({5}, device), 1), ShapeError);
  CHECK_THROWS_AS(topk(row({5}, device), 2, 0), ShapeError);
  CHECK_THROWS_AS(argsort(convert(row({5}, device), DType::bf16), 0), DTypeError);
}

TEST_CASE("sort reads views and its derivative follows the values", "[models][order]") {
  const Device device = cpu();
  const Tensor x = to_tensor(random_value({5, 6}, -1, 1, 3), device);
  const auto f = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {sort(transpose(in[0], {1, 0}) * 2.0, 1, true), topk(in[0], 2, 1).values,
            sort(flip(in[0], {0}), 0)};
  };
  CHECK(check_derivatives(f, {x}).message == "");
  const Program program = compile([](const Tensor& y) { return sort(y, 1); }).program(x);
  INFO(to_string(program));
  CHECK(program.kernels.size() == 2);  // no memory for pairs
}

TEST_CASE("a line of a hundred thousand values sorts", "[models][order]") {
  const Device device = cpu({.threads = 2});
  const HostValue host = random_value({2, 100000}, -1, 1, 9);
  Values expected = host.values;
  std::sort(expected.begin(), expected.begin() + 100000);
  std::sort(expected.begin() + 100000, expected.end());
  CHECK(host_values(sort(to_tensor(host, device), 1)) == expected);
}

TEST_CASE("cumprod and prod have exact derivatives of every order where factors are zero",
          "[models][order]") {
  const Device device = cpu();
  for (const std::int64_t size : {0, 1, 2, 5, 8, 13}) {
    HostValue host = random_value({2, size, 3}, -2, 2, 5), expected = host;
    if (size > 4)
      for (const std::size_t zero : {3u, 7u, 16u, 20u})
        host.values[zero] = expected.values[zero] = 0;
    for (std::size_t o = 0; o < 2; ++o)
      for (std::size_t k = 1; k < static_cast<std::size_t>(size); ++k)
        for (std::size_t i = 0; i < 3; ++i) {
          const std::size_t at = (o * static_cast<std::size_t>(size) + k) * 3 + i;
          expected.values[at] = expected.values[at - 3] * host.values[at];
        }
    CHECK(difference(cumprod(to_tensor(host, device), 1), to_tensor(expected, device), 1e-14, 0) ==
          "");
  }
  const Tensor x = row({2, 0, 3, 0, 5}, device);
  const auto first = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {cumprod(in[0], 0), prod(in[0])};
  };
  CHECK(check_derivatives(first, {x}).message == "");
  const auto second = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {grad([](const Tensor& y) {
      return sum(cumprod(y, 0) * iota(y.shape(), 0, DType::f64, y.device()));
    })(in[0])};
  };
  CHECK(check_derivatives(second, {x}).message == "");
  CHECK(host_values(grad([](const Tensor& y) { return prod(y); })(row({2, 0, 3}, device))) ==
        Values{0, 6, 0});
}

TEST_CASE("einsum equals loops over every letter", "[models][einsum]") {
  const Device device = cpu();
  struct Example {
    std::string equation;
    std::vector<Shape> shapes;
  };
  const Example examples[] = {
      {"ij,jk->ik", {{3, 4}, {4, 5}}},
      {"ij,jk->ki", {{3, 4}, {4, 5}}},
      {"bij,bkj->bik", {{2, 3, 4}, {2, 5, 4}}},
      {"bhqd,bkhd->bhqk", {{2, 3, 4, 5}, {2, 6, 3, 5}}},
      {"i,j->ij", {{3}, {4}}},
      {"i,i->", {{7}, {7}}},
      {"ij,ij->i", {{3, 4}, {3, 4}}},
      {"ij,ij->ji", {{3, 4}, {3, 4}}},
      {"ijk,kl->jl", {{2, 3, 4}, {4, 5}}},
      {"ij,k->jk", {{2, 3}, {4}}},
      {"ab,bc,cd->ad", {{2, 7}, {7, 3}, {3, 5}}},
      {"ab,cd,bc->da", {{2, 3}, {4, 5}, {3, 4}}},
      {"bi,bij,bj->b", {{4, 2}, {4, 2, 3}, {4, 3}}},
      {"i,ij,jk,k->", {{2}, {2, 3}, {3, 4}, {4}}},
      {"ijk->kj", {{2, 3, 4}}},
      {",i->i", {{}, {3}}},
      {"ij,jk->ik", {{3, 0}, {0, 2}}},
      {"ij,jk->ik", {{0, 2}, {2, 3}}},
      // Repeated along an axis of size 1.
      {"ij,jk->ik", {{3, 1}, {4, 5}}},
      {"ij,jk->ijk", {{3, 4}, {1, 5}}},
      {"bik,bkj->bij", {{1, 3, 4}, {2, 4, 5}}},
      {"ab,bc,cd->ad", {{2, 1}, {3, 4}, {1, 5}}},
      {"i,i->i", {{1}, {4}}},
      {"ij,jk->ik", {{3, 0}, {1, 5}}},
  };
  for (const Example& example : examples) {
    INFO(example.equation);
    std::vector<HostValue> hosts;
    for (const Shape& shape : example.shapes)
      hosts.push_back(random_value(shape, -1, 1, 90 + hosts.size()));
    const std::vector<Tensor> operands = to_tensors(hosts, device);
    CHECK(difference(einsum(example.equation, operands),
                     to_tensor(summed_products(example.equation, hosts), device), 1e-13,
                     1e-13) == "");
    const auto f = [&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
      return {einsum(example.equation, in)};
    };
    if (operands[0].elements() > 0) CHECK(check_derivatives(f, operands).message == "");
  }
}

TEST_CASE("einsum names what is wrong", "[models][einsum]") {
  const Device device = cpu();
  const Tensor a = zeros({2, 3}, DType::f32, device), b = zeros({3, 4}, DType::f32, device);
  CHECK_THROWS_WITH(einsum("ij,jk", {a, b}), has_text("einsum") && has_text("explicit result"));
  CHECK_THROWS_WITH(einsum("ij,jk->ik", {a}), has_text("2 lists of axes for 1 operands"));
  CHECK_THROWS_WITH(einsum("ijk,jk->ik", {a, b}), has_text("operand 0"));
  CHECK_THROWS_WITH(einsum("ij,ik->jk", {a, b}),
                    has_text("'i' has size 3 in operand 1 and 2 before"));
  CHECK_THROWS_WITH(einsum("ii,jk->ik", {a, b}), has_text("'i' occurs twice"));
  CHECK_THROWS_WITH(einsum("ij,jk->ii", {a, b}), has_text("'i' occurs twice"));
  CHECK_THROWS_WITH(einsum("ij,jk->il", {a, b}), has_text("axis 'l'"));
  CHECK_THROWS_WITH(einsum("...j,jk->k", {a, b}), has_text("'.'"));
}

TEST_CASE("rounding goes to the nearest whole number, halves to the even one", "[engine][ops]") {
  for (const Device& device : {cpu(), reference()}) {
    const Tensor x = Tensor::from(std::vector<float>{-2.5f, -1.5f, -0.5f, -0.2f, 0.49999997f, 0.5f,
                                                     1.5f, 2.5f, 2.6f, 8388609.0f, -8388609.0f},
                                  {11}, device);
    CHECK(host_values(round(x)) == Values{-2, -2, 0, 0, 0, 0, 2, 2, 3, 8388609, -8388609});
    CHECK(host_values(ceil(row({-1.5, -1, 0.2, 2}, device))) == Values{-1, -1, 1, 2});
    CHECK(host_values(clip(row({-3, 0.5, 7}, device), -1.0, 2.0)) == Values{-1, 0.5, 2});
    CHECK(std::isnan(host_values(clip(row({std::nan("")}, device), -1.0, 2.0))[0]));
  }
}
