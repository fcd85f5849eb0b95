// Divergences and their estimates against the trace of a dense Jacobian.
#include <cmath>

#include "autograd/check.h"
#include "autograd/divergence.h"
#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

Tensor random(const Shape& shape, std::uint64_t seed, const Device& device) {
  return to_tensor(random_value(shape, -1, 1, seed), device);
}

// Rows of [batch, ..] flattened through a layer and back: a field with independent rows and a full
// Jacobian.
Field layer(const Tensor& w) {
  return [w](const Tensor& x) {
    return reshape(tanh(matmul(reshape(x, {x.size(0), -1}), w)), x.shape()) * (1.0 + 0.5 * x);
  };
}

// The trace of each sample's Jacobian, from the dense one.
// sum_ij w_ij of each sample, w a function of its Jacobian.
template <class W>
Tensor of_dense_jacobian(const Field& f, const Tensor& x, W weigh) {
  std::vector<Tensor> sums;
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    const Tensor one = slice_axis(x, 0, i, i + 1);
    const Tensor J = reshape(jacrev(f, one), {one.elements(), one.elements()});
    sums.push_back(reshape(sum(weigh(J)), {1}));
  }
  return concat(sums, 0);
}
Tensor dense_trace(const Field& f, const Tensor& x) {
  return of_dense_jacobian(f, x, [](const Tensor& J) {
    return where(
        eq(iota(J.shape(), 0, DType::i32, J.device()), iota(J.shape(), 1, DType::i32, J.device())),
        J, 0.0);
  });
}
Tensor dense_squared_norm(const Field& f, const Tensor& x) {
  return of_dense_jacobian(f, x, [](const Tensor& J) { return square(J); });
}

// The linear field x -> x A' with A = U V' of rank `rank`, the same for every sample: its
// divergence is tr A.
Field low_rank(const Tensor& u, const Tensor& v) {
  return [=](const Tensor& x) { return matmul(matmul(x, v), swap_axes(u, 0, 1)); };
}

}  // namespace

TEST_CASE("the exact divergence is the trace of the dense Jacobian", "[autograd][divergence]") {
  for (const Device& device : {reference(), cpu()}) {
    for (const Shape& shape : {Shape{4, 5}, Shape{3, 2, 2, 2}, Shape{1, 1}, Shape{2, 7}}) {
      INFO(device.name() << " " << to_string(shape));
      const Tensor x = random(shape, 1, device);
      const std::int64_t elements = x.elements() / x.size(0);
      const Field f = layer(random({elements, elements}, 2, device));
      const Tensor expected = dense_trace(f, x), norm = dense_squared_norm(f, x);
      for (const std::int64_t at_once : {0, 1, 3, 100}) {
        const FieldDivergence got = divergence(f, x, at_once);
        CHECK(difference(got.divergence, expected, 1e-13, 1e-13) == "");
        CHECK(difference(got.squared_norm, norm, 1e-13, 1e-13) == "");
        CHECK(difference(got.value, f(x), 1e-14, 1e-14) == "");
      }
    }
    // One number a sample; no samples; samples of nothing.
    const Tensor line = random({5}, 3, device);
    CHECK(difference(divergence([](const Tensor& z) { return sin(z); }, line).divergence, cos(line),
                     1e-14, 1e-14) == "");
    const Field square_of = [](const Tensor& z) { return square(z); };
    CHECK(divergence(square_of, random({0, 3}, 4, device)).divergence.shape() == Shape{0});
    CHECK(host_values(divergence(square_of, random({2, 0}, 5, device)).divergence) ==
          std::vector<double>{0, 0});
  }
}

TEST_CASE("probes give v' J v, and Hutchinson's estimate is their mean", "[autograd][divergence]") {
  for (const Device& device : {reference(), cpu()}) {
    const Tensor x = random({3, 2, 2}, 6, device), probes = random({5, 3, 2, 2}, 7, device);
    const Field f = layer(random({4, 4}, 8, device));
    const ProbedField probed = probe(f, x, probes);
    REQUIRE(probed.vJv.shape() == Shape{5, 3});
    for (std::int64_t m = 0; m < 5; ++m) {
      const Tensor v = reshape(slice_axis(probes, 0, m, m + 1), x.shape());
      const Tensor expected = sum(v * jvp(f, x, v).second, {1, 2});
      CHECK(difference(reshape(slice_axis(probed.vJv, 0, m, m + 1), {3}), expected, 1e-13, 1e-13) ==
            "");
    }
    CHECK(difference(hutchinson(f, x, probes).divergence, mean(probed.vJv, {0}), 1e-14, 1e-14) ==
          "");
    CHECK(difference(probed.value, f(x), 1e-14, 1e-14) == "");
    // All corners of the cube as probes: E[v v'] = I holds exactly, so the mean is the trace.
    std::vector<double> corners;
    for (int bits = 0; bits < 16; ++bits)
      for (int sample = 0; sample < 3; ++sample)
        for (int k = 0; k < 4; ++k) corners.push_back((bits >> k & 1) != 0 ? 1 : -1);
    const Tensor all = Tensor::from(corners, {16, 3, 2, 2}, device);
    const FieldDivergence estimate = hutchinson(f, x, all), exact = divergence(f, x);
    CHECK(difference(estimate.divergence, exact.divergence, 1e-13, 1e-13) == "");
    CHECK(difference(estimate.squared_norm, exact.squared_norm, 1e-13, 1e-13) == "");
  }
}

TEST_CASE("Hutch++ is exact up to the rank of its sketch, and for any probes",
          "[autograd][divergence]") {
  for (const Device& device : {reference(), cpu()})
    for (const std::int64_t rank : {1, 2, 4})
      for (const std::int64_t columns : {rank, rank + 1, rank + 3}) {
        INFO(device.name() << ", rank " << rank << ", " << columns << " columns");
        const Tensor u = random({9, rank}, 9, device), v = random({9, rank}, 10, device),
                     x = random({2, 9}, 11, device);
        const Tensor sketch = random({columns, 2, 9}, 12, device),
                     probes = random({3, 2, 9}, 13, device);
        const Tensor trace = broadcast_to(sum(u * v), {2});
        CHECK(difference(hutch_plus_plus(low_rank(u, v), x, sketch, probes).divergence, trace, 1e-9,
                         1e-9) == "");
        CHECK(difference(hutch_plus_plus(low_rank(u, v), x, sketch, random({0, 2, 9}, 14, device))
                             .divergence,
                         trace, 1e-9, 1e-9) == "");
      }
}

TEST_CASE("Hutch++ is unbiased over its probes, and Hutchinson's estimate without a sketch",
          "[autograd][divergence]") {
  const Device device = cpu();
  const Tensor x = random({3, 4}, 15, device), sketch = random({2, 3, 4}, 16, device),
               probes = random({5, 3, 4}, 17, device);
  const Field f = layer(random({4, 4}, 18, device));
  std::vector<double> corners;
  for (int bits = 0; bits < 16; ++bits)
    for (int sample = 0; sample < 3; ++sample)
      for (int k = 0; k < 4; ++k) corners.push_back((bits >> k & 1) != 0 ? 1 : -1);
  const Tensor all = Tensor::from(corners, {16, 3, 4}, device);
  const FieldDivergence estimate = hutch_plus_plus(f, x, sketch, all), exact = divergence(f, x);
  CHECK(difference(estimate.divergence, exact.divergence, 1e-12, 1e-13) == "");
  CHECK(difference(estimate.squared_norm, exact.squared_norm, 1e-12, 1e-13) == "");
  const Tensor none = random({0, 3, 4}, 19, device);
  CHECK(difference(hutch_plus_plus(f, x, none, probes).divergence,
                   hutchinson(f, x, probes).divergence, 1e-13, 1e-13) == "");
  // A field without derivative, and a sketch that says the same thing twice.
  const Field constant = [](const Tensor& z) { return zeros_like(z); };
  CHECK(host_values(hutch_plus_plus(constant, x, sketch, probes).divergence) ==
        std::vector<double>{0, 0, 0});
  const Tensor twice = concat({sketch, sketch}, 0);
  CHECK(difference(hutch_plus_plus(f, x, twice, all).divergence, divergence(f, x).divergence, 1e-12,
                   1e-13) == "");
}

TEST_CASE("Hutch++ in f32 knows what is rounding", "[autograd][divergence]") {
  const Device device = cpu();
  const auto f32 = [&](const Shape& shape, std::uint64_t seed) {
    return to_tensor(random_value(shape, -1, 1, seed), device, DType::f32);
  };
  const Tensor u = f32({9, 2}, 20), v = f32({9, 2}, 21), x = f32({2, 9}, 22);
  const Tensor got =
      hutch_plus_plus(low_rank(u, v), x, f32({5, 2, 9}, 23), f32({4, 2, 9}, 24)).divergence;
  CHECK(difference(got, broadcast_to(sum(u * v), {2}), 1e-4, 1e-4) == "");
}

TEST_CASE("gradients go through every divergence", "[autograd][divergence]") {
  const Device device = cpu();
  const Tensor w = random({4, 4}, 25, device), x = random({2, 4}, 26, device);
  const Tensor sketch = random({2, 2, 4}, 27, device), probes = random({3, 2, 4}, 28, device);
  const auto check = [&](const char* what,
                         const std::function<Tensor(const Tensor&, const Tensor&)>& f) {
    INFO(what);
    const auto objective = [&](const Tensor& weights, const Tensor& at) {
      return sum(square(f(weights, at)));
    };
    // The value, and its gradient's own derivative: second order in the objective, third in the
    // field.
    const DerivativeCheck first = check_derivatives(
        [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{objective(in[0], in[1])}; },
        {w, x}, {.tolerance = 1e-7});
    CHECK(first.message == "");
    const DerivativeCheck second = check_derivatives(
        [&](const std::vector<Tensor>& in) {
          return std::vector<Tensor>{grad(objective)(in[0], in[1])};
        },
        {w, x}, {.tolerance = 1e-6});
    CHECK(second.message == "");
    const auto compiled =
        compile([&](const Tensor& a, const Tensor& b) { return grad(objective)(a, b); });
    CHECK(difference(compiled(w, x), grad(objective)(w, x), 1e-11, 1e-12) == "");
  };
  check("exact",
        [](const Tensor& a, const Tensor& at) { return divergence(layer(a), at).divergence; });
  check("exact in blocks",
        [](const Tensor& a, const Tensor& at) { return divergence(layer(a), at, 3).divergence; });
  check("Hutchinson", [&](const Tensor& a, const Tensor& at) {
    return hutchinson(layer(a), at, probes).divergence;
  });
  check("Hutch++", [&](const Tensor& a, const Tensor& at) {
    return hutch_plus_plus(layer(a), at, sketch, probes).divergence;
  });
}

TEST_CASE("probes have the moments they should", "[autograd][divergence]") {
  const Device device = cpu();
  const Tensor key = random_key(7, device);
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = zeros({50, 8}, dtype, device);
    const Tensor signs = rademacher_probes(key, x, 100), normal = gaussian_probes(key, x, 100);
    CHECK(signs.type() == TensorType{{100, 50, 8}, dtype});
    CHECK(normal.type() == signs.type());
    for (const double each : host_values(signs)) REQUIRE(std::abs(each) == 1);
    // 40000 draws: the mean of a fair one is within 5 / 200, its square's within 5 sqrt(2) / 200.
    CHECK(std::abs(host_values(mean(signs))[0]) < 0.025);
    CHECK(std::abs(host_values(mean(normal))[0]) < 0.025);
    CHECK(std::abs(host_values(mean(square(normal)))[0] - 1) < 0.036);
  }
  CHECK_THROWS_AS(rademacher_probes(key, zeros({2}, DType::f32, device), -1), ShapeError);
}

TEST_CASE("three probes share one primal pass", "[autograd][divergence]") {
  const Device device = cpu();
  const Tensor w = random({6, 6}, 29, device), x = random({16, 6}, 30, device),
               probes = random({3, 16, 6}, 31, device);
  const Field mlp = [&](const Tensor& z) { return matmul(tanh(matmul(tanh(matmul(z, w)), w)), w); };
  const auto estimate =
      compile([&](const Tensor& z, const Tensor& vs) { return hutchinson(mlp, z, vs); });
  const Program& program = estimate.program(x, probes);
  INFO(to_string(program));
  std::size_t products = 0;
  for (const Kernel& kernel : program.kernels)
    products += std::holds_alternative<ContractKernel>(kernel);
  CHECK(products == 6);  // three layers for the value, three for all tangents
  // In blocks, and in the three rounds of Hutch++, the value is still computed once.
  const auto rows = [](const Program& made) {
    std::int64_t count = 0;
    for (const Kernel& kernel : made.kernels)
      if (const auto* contract = std::get_if<ContractKernel>(&kernel))
        count += contract->batch * contract->m * contract->results;
    return count;
  };
  const auto blocks = compile([&](const Tensor& z) { return divergence(mlp, z, 2); });
  CHECK(rows(blocks.program(x)) == 3 * 16 + 3 * 6 * 16);
  const auto sketched = compile([&](const Tensor& z, const Tensor& s, const Tensor& vs) {
    return hutch_plus_plus(mlp, z, s, vs);
  });
  CHECK(rows(sketched.program(x, random({2, 16, 6}, 32, device), probes)) ==
        3 * 16 + 3 * (2 + 2 + 3) * 16);
}

TEST_CASE("divergences say what is wrong", "[autograd][divergence]") {
  const Device device = cpu();
  const Tensor x = random({3, 4}, 32, device), probes = random({2, 3, 4}, 33, device);
  const Field same = [](const Tensor&z) { return z; },
              shorter = [](const Tensor&z) { return sum(z, {1}); };
  CHECK_THROWS_AS(divergence(shorter, x), ShapeError);
  CHECK_THROWS_AS(divergence(same, random({}, 34, device)), ShapeError);
  CHECK_THROWS_AS(divergence(same, convert(x, DType::i32)), DTypeError);
  CHECK_THROWS_AS(hutchinson(same, x, x), ShapeError);
  CHECK_THROWS_AS(hutchinson(same, x, random({0, 3, 4}, 35, device)), ShapeError);
  CHECK_THROWS_AS(hutchinson(same, x, random({2, 3, 5}, 36, device)), ShapeError);
  CHECK_THROWS_AS(hutch_plus_plus(same, x, probes, x), ShapeError);
  CHECK_THROWS_AS(hutch_plus_plus(same, x, x, probes), ShapeError);
}
