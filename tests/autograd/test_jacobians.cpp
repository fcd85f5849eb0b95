// Dense Jacobians and Hessians against each other, finite differences and closed forms.
#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using TensorMap = std::function<Tensor(const Tensor&)>;

Tensor jacobian_input(const Shape& shape, std::uint64_t seed, const Device& device) {
  return to_tensor(random_value(shape, -1, 1, seed), device);
}

// [y.., x..], column by column, by fourth-order central differences.
Tensor differences(const TensorMap& f, const Tensor& x) {
  const double h = 1e-3;
  const std::vector<double> at = host_values(x);
  const auto moved = [&](std::size_t i, double step) {
    std::vector<double> values = at;
    values[i] += step;
    return f(Tensor::from(values, x.shape(), x.device()));
  };
  std::vector<Tensor> columns;
  for (std::size_t i = 0; i < at.size(); ++i)
    columns.push_back(expand_dims(
        (8.0 * (moved(i, h) - moved(i, -h)) - (moved(i, 2 * h) - moved(i, -2 * h))) / (12 * h),
        -1));
  Dims sizes = f(x).shape().dims();
  sizes.insert(sizes.end(), x.shape().begin(), x.shape().end());
  return reshape(concat(columns, -1), Shape(sizes));
}

}  // namespace

TEST_CASE("jacfwd is jacrev is finite differences", "[autograd][jacobians]") {
  for (const Device& device : {reference(), cpu()}) {
    const Tensor w = jacobian_input({3, 5}, 1, device), x = jacobian_input({2, 3}, 2, device),
                 scalar = jacobian_input({}, 3, device);
    const std::pair<TensorMap, Tensor> cases[] = {
        {[&](const Tensor& z) { return tanh(matmul(z, w)); }, x},
        {[&](const Tensor& z) { return softmax(matmul(z, w)) * sum(z); }, x},
        {[](const Tensor& z) { return sum(sin(z)); }, x},  // to a scalar
        {[](const Tensor& z) { return sin(z * iota({4}, 0, DType::f64, z.device())); },
         scalar},  // from a scalar
        {[](const Tensor& z) { return exp(z); }, scalar},
        {[](const Tensor& z) { return layer_norm(z, 1e-2); }, x},
        {[](const Tensor& z) { return attention(z, z, z); }, x},
        {[](const Tensor& z) { return cumsum(z, 0) * stop_gradient(z); }, x},
        {[&](const Tensor&) { return w; }, x},                        // constant
        {[](const Tensor& z) { return slice_axis(z, 0, 1, 1); }, x},  // to nothing
    };
    int number = 0;
    for (const auto& [f, at] : cases) {
      INFO(device.name() << ", case " << number);
      const Tensor forward = jacfwd(f, at), reverse = jacrev(f, at);
      CHECK(difference(forward, reverse, 1e-12, 1e-13) == "");
      if (number != 7)
        CHECK(difference(forward, differences(f, at), 1e-8, 1e-9) ==
              "");  // differences see through stop_gradient
      ++number;
    }
    // From nothing.
    const Tensor nothing = jacobian_input({0, 3}, 4, device);
    const TensorMap f = [&](const Tensor& z) { return sum(matmul(z, w), {0}); };
    CHECK(jacfwd(f, nothing).shape() == Shape{5, 0, 3});
    CHECK(jacrev(f, nothing).shape() == Shape{5, 0, 3});
    CHECK(host_values(jacrev(f, nothing)).empty());
  }
}

TEST_CASE("the Hessian of a quartic is its closed form", "[autograd][jacobians]") {
  for (const Device& device : {reference(), cpu()}) {
    const Tensor x = jacobian_input({4}, 5, device), a = jacobian_input({4, 4}, 6, device);
    // q = (x'x)^2 / 4: H = x'x I + 2 x x'.
    const auto identity = convert(
        eq(iota({4, 4}, 0, DType::i32, device), iota({4, 4}, 1, DType::i32, device)), DType::f64);
    const Tensor column = reshape(x, {4, 1}), outer = matmul(column, reshape(x, {1, 4}));
    const Tensor norm = hessian([](const Tensor& z) { return 0.25 * square(sum(square(z))); }, x);
    CHECK(difference(norm, sum(square(x)) * identity + 2.0 * outer, 1e-13, 1e-14) == "");
    // q = sum_i (a x)_i^4: H = 12 a' diag((a x)^2) a.
    const Tensor mixed = hessian(
        [&](const Tensor& z) {
          return sum(square(square(matmul(a, reshape(z, {4, 1})))));
        },
        x);
    const Tensor expected = 12.0 * matmul(swap_axes(a, 0, 1), square(matmul(a, column)) * a);
    CHECK(difference(mixed, expected, 1e-13, 1e-13) == "");
    CHECK(difference(mixed, swap_axes(mixed, 0, 1), 1e-13, 1e-13) == "");
    // Of a matrix: [x.., x..], and hvp is its product with a direction.
    const Tensor m = jacobian_input({2, 3}, 7, device), v = jacobian_input({2, 3}, 8, device);
    const TensorMap g = [](const Tensor& z) {
      return sum(exp(matmul(z, swap_axes(z, 0, 1)) * 0.5));
    };
    const Tensor whole = hessian(g, m);
    CHECK(whole.shape() == Shape{2, 3, 2, 3});
    CHECK(difference(reshape(matmul(reshape(whole, {6, 6}), reshape(v, {6, 1})), {2, 3}),
                     hvp(g, m, v), 1e-12, 1e-13) == "");
    CHECK(difference(whole, differences([&](const Tensor& z) { return grad(g)(z); }, m), 1e-8,
                     1e-9) == "");
  }
}

TEST_CASE("Jacobians compile, batch and differentiate", "[autograd][jacobians]") {
  const Device device = cpu();
  const Tensor w = jacobian_input({3, 3}, 9, device), xs = jacobian_input({5, 3}, 10, device),
               x = reshape(slice_axis(xs, 0, 2, 3), {3});
  const TensorMap f = [&](const Tensor& z) {
    return sin(reshape(matmul(reshape(z, {1, 3}), w), {3})) * z;
  };
  const auto forward = [&](const Tensor& z) { return jacfwd(f, z); };
  const auto reverse = [&](const Tensor& z) { return jacrev(f, z); };
  CHECK(difference(compile(forward)(x), jacfwd(f, x), 1e-13, 1e-14) == "");
  CHECK(difference(compile(reverse)(x), jacrev(f, x), 1e-13, 1e-14) == "");
  const Tensor all = vmap(forward)(xs);
  CHECK(difference(all, vmap(reverse)(xs), 1e-13, 1e-14) == "");
  CHECK(difference(reshape(slice_axis(all, 0, 2, 3), {3, 3}), jacfwd(f, x), 1e-13, 1e-14) == "");
  // A penalty on the Jacobian, and its gradient by either mode.
  const auto penalty = [](const auto& jacobian) {
    return [=](const Tensor& z) { return sum(square(jacobian(z))); };
  };
  const Tensor gradient = grad(penalty(forward))(x);
  CHECK(difference(gradient, grad(penalty(reverse))(x), 1e-12, 1e-13) == "");
  CHECK(difference(gradient, differences(penalty(forward), x), 1e-8, 1e-9) == "");
  // Third derivatives: the Jacobian of a Hessian.
  const TensorMap cubes = [](const Tensor& z) { return sum(z * z * z); };
  const Tensor third = jacrev([&](const Tensor& z) { return hessian(cubes, z); }, x);
  CHECK(difference(sum(third, {1, 2}), full_like(x, 6), 1e-13, 1e-14) == "");
  CHECK(sum(abs(third)).item<double>() == Approx(18));
}

TEST_CASE("a Jacobian evaluates its function once", "[autograd][jacobians]") {
  const Device device = cpu();
  const Tensor a = jacobian_input({6, 6}, 11, device), x = jacobian_input({6}, 12, device);
  int calls = 0;
  const TensorMap f = [&](const Tensor& z) {
    ++calls;
    const Tensor h = tanh(matmul(reshape(z, {1, 6}), a));
    return reshape(tanh(matmul(h, a)), {6});
  };
  const auto products = [&](const auto& jacobian) {
    std::size_t count = 0;
    const Program& program = jacobian.program(x);
    for (const Kernel& kernel : program.kernels)
      count += std::holds_alternative<ContractKernel>(kernel);
    return count;
  };
  const auto forward = compile([&](const Tensor& z) { return jacfwd(f, z); });
  const auto reverse = compile([&](const Tensor& z) { return jacrev(f, z); });
  // Two layers forward; the basis through two layers, of which the first product with the identity
  // is one too.
  CHECK(products(forward) == 4);
  CHECK(products(reverse) == 4);
  CHECK(calls == 2);
}

TEST_CASE("Jacobians say what they can't do", "[autograd][jacobians]") {
  const Tensor x = jacobian_input({3}, 13, cpu()),
               n = Tensor::from(std::vector<std::int32_t>{1, 2}, {2}, x.device());
  const TensorMap to_integers = [](const Tensor& z) { return convert(z, DType::i32); };
  const TensorMap from_integers = [](const Tensor& z) { return convert(z, DType::f64); };
  CHECK_THROWS_AS(jacfwd(to_integers, x), DTypeError);
  CHECK_THROWS_AS(jacrev(to_integers, x), DTypeError);
  CHECK_THROWS_AS(jacfwd(from_integers, n), DTypeError);
  CHECK_THROWS_AS(jacrev(from_integers, n), DTypeError);
  CHECK_THROWS_AS(hessian([](const Tensor& z) { return z; }, x), ShapeError);
  CHECK_THROWS_AS(hessian(from_integers, n), DTypeError);
  const TensorMap same = [](const Tensor& z) { return z; };
  const TensorMap nothing = [](const Tensor&) { return Tensor(); };
  const auto says = [](const auto& call, const std::string& what) {
    const std::string message = message_of(call);
    INFO("wants: " << what << ", got: " << message);
    CHECK_THAT(message, has_text(what));
    CHECK_THAT(message, has_text("(test_jacobians.cpp:"));
  };
  says([&] { jacfwd(to_integers, x); }, "jacfwd: the result is i32[3]");
  says([&] { jacrev(from_integers, n); }, "jacrev: the argument is i32[2]");
  says([&] { hessian(from_integers, n); }, "hessian: the argument is i32[2]");
  says([&] { hessian(to_integers, x); }, "hessian: the result is i32[3]");
  says([&] { hessian(same, x); }, "hessian: wants a scalar function, got f64[3] from f64[3]");
  says([&] { jacfwd(same, Tensor()); }, "jacfwd: the argument holds no tensor");
  says([&] { jacrev(nothing, x); }, "jacrev: the result holds no tensor");
  says([&] { hessian(nothing, x); }, "hessian: the result holds no tensor");
}
