// Derivatives of products of 16-bit operands, against the same derivatives in f64.
//
// A result of 16 bits is a sum in f32 that was rounded once: it differs from the exact sum s of k
// products p by at most u |s|, u being half a unit in the last place of its dtype, and what f32
// lost, (k + 1) 2^-24 sum |p|. Operands lie in [-1, 1], so that sum |p| <= k.
#include <cmath>

#include "autograd/transforms.h"
#include "autograd/vmap.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "models/layers/image.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const DType narrow_dtypes[] = {DType::bf16, DType::f16};

double half_unit(DType dtype) {
  return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0x1p-24;
}

// The same numbers in f64.
Tensor exact(const Tensor& x) {
  Tensor wide = convert(x, DType::f64);
  eval(wide);
  return wide;
}

// `got`, sums of at most `products` products each, against the same in f64. `parts`: the sum of the
// magnitudes of sums that were rounded to 16 bits before they were added up.
void check_close(const Tensor& got, const Tensor& expected, double products, double parts = 0) {
  const double sums = (products + 1) * products * 0x1p-24 + parts * half_unit(got.dtype());
  CHECK(difference(exact(got), expected, half_unit(got.dtype()) * 1.01,
                   sums + 0x1p-24 /* f16's smallest steps */) == "");
}

using BinaryFunction = std::function<Tensor(const Tensor&, const Tensor&)>;
struct Example {
  const char* label;
  Shape a, b;
  double products;  // that a sum of the derivative has at most
  BinaryFunction f;
};

std::vector<Example> examples(std::optional<DType> result) {
  const auto product = [=](const Tensor& a, const Tensor& b) {
    return result ? matmul(a, b, *result) : matmul(a, b);
  };
  const auto convolution = [=](ConvolutionOptions options) {
    return [=](const Tensor& x, const Tensor& w) {
      ConvolutionOptions asked = options;
      // f64 has one result.
      if (x.dtype() != DType::f64) asked.result = result;
      return conv2d(x, w, asked);
    };
  };
  return {
      {"a product", {5, 19}, {19, 7}, 40, product},
      {"a batch by a shared matrix", {3, 5, 9}, {9, 4}, 40, product},
      {"broadcast batches", {3, 1, 5, 9}, {2, 9, 4}, 40, product},
      {"a convolution", {2, 5, 4, 3}, {3, 3, 3, 8}, 200, convolution({.low = {1, 1}})},
      {"few outputs", {2, 5, 4, 3}, {3, 3, 3, 2}, 200, convolution({.high = {1, 1}})},
      {"strides and groups",
       {1, 6, 5, 4},
       {2, 2, 2, 6},
       200,
       convolution({.stride = {2, 1}, .groups = 2})},
      {"each channel for itself", {2, 5, 5, 3}, {3, 3, 1, 3}, 200, convolution({.groups = 3})},
  };
}

// f in f64, where no result is asked for.
BinaryFunction in_f64(const std::vector<Example>& plain, const char* label) {
  for (const Example& each : plain)
    if (std::string(each.label) == label) return each.f;
  throw Error(label);
}

}  // namespace

TEST_CASE("tangents and cotangents of 16-bit products have their tensors' dtypes and f64's values",
          "[autograd][precision]") {
  const std::vector<Example> plain = examples({});
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const DType dtype : narrow_dtypes)
      for (const std::optional<DType> result : {std::optional<DType>(), std::optional(dtype)})
        for (const Example& each : examples(result)) {
          INFO(device.name() << ": " << each.label << " of " << to_string(dtype)
                             << (result ? ", rounded" : ""));
          const BinaryFunction wide = in_f64(plain, each.label);
          const Tensor a = random_tensor(each.a, device, 1, dtype),
                       b = random_tensor(each.b, device, 2, dtype),
                       da = random_tensor(each.a, device, 3, dtype),
                       db = random_tensor(each.b, device, 4, dtype);
          const auto [y, dy] = jvp(each.f, std::tuple{a, b}, std::tuple{da, db});
          const auto [y64, dy64] =
              jvp(wide, std::tuple{exact(a), exact(b)}, std::tuple{exact(da), exact(db)});
          CHECK(y.dtype() == result.value_or(DType::f32));
          CHECK(dy.type() == y.type());
          check_close(dy, dy64, 2 * each.products);
          // Along one operand alone.
          const auto along = [&](const Tensor& x) { return each.f(x, b); };
          const Tensor alone = jvp(along, std::tuple{a}, std::tuple{da}).second;
          CHECK(alone.type() == y.type());
          check_close(alone,
                      jvp([&](const Tensor& x) { return wide(x, exact(b)); }, std::tuple{exact(a)},
                          std::tuple{exact(da)})
                          .second,
                      each.products);

          const Tensor u = random_tensor(y.shape(), device, 5, y.dtype());
          const auto [ga, gb] = vjp(each.f, a, b).second(u);
          const auto [ga64, gb64] = vjp(wide, exact(a), exact(b)).second(exact(u));
          CHECK(ga.type() == a.type());
          CHECK(gb.type() == b.type());
          // Where batches are broadcast, each of up to 3 is rounded, a sum of up to 9 products.
          const bool batches = std::string(each.label).find("batch") != std::string::npos;
          check_close(ga, ga64, each.products, batches ? 3 * 9 : 0);
          check_close(gb, gb64, each.products, batches ? 3 * 9 : 0);
        }
}

TEST_CASE("operands of two dtypes get cotangents of two dtypes", "[autograd][precision]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = random_tensor({5, 19}, device, 1, DType::f32),
               w = random_tensor({19, 7}, device, 2, DType::bf16),
               u = random_tensor({5, 7}, device, 3, DType::f32);
  const BinaryFunction product = [](const Tensor& a, const Tensor& b) { return matmul(a, b); };
  const auto [gx, gw] = vjp(product, x, w).second(u);
  const auto [gx64, gw64] = vjp(product, exact(x), exact(w)).second(exact(u));
  CHECK(gx.type() == x.type());
  CHECK(gw.type() == w.type());
  check_close(gx, gx64, 7);
  check_close(gw, gw64, 5);
}

TEST_CASE("16-bit cotangents of one tensor that several ops use are added in f32",
          "[autograd][precision]") {
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const DType dtype : narrow_dtypes) {
      INFO(device.name() << ", " << to_string(dtype));
      const Tensor x = random_tensor({6, 6}, device, 1, dtype);
      // Twice in one product, and once beside it.
      const auto loss = [](const Tensor& x) {
        const DType sums = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
        return sum(matmul(x, swap_axes(x, 0, 1))) + sum(convert(x, sums) * 0.5);
      };
      const Tensor g = grad(loss)(x);
      CHECK(g.type() == x.type());
      // Three parts of at most 6 each and their two sums are rounded.
      CHECK(difference(exact(g), grad(loss)(exact(x)), 0, 5 * 13 * half_unit(dtype)) == "");

      // Rows of a table, taken twice; windows that overlap; a stretched axis.
      const Tensor table = random_tensor({4, 3}, device, 2, dtype),
                   image = random_tensor({1, 4, 4, 2}, device, 3, dtype);
      const Tensor rows = Tensor::from(std::vector<std::int32_t>{1, 3, 1}, {3}, device);
      const auto weighted = [](const Tensor& y) {
        const DType sums = y.dtype() == DType::f64 ? DType::f64 : DType::f32;
        const Tensor wide = convert(y, sums);
        return sum(wide * reshape(iota({wide.elements()}, 0, sums, y.device()), wide.shape()));
      };
      const std::pair<Tensor, std::function<Tensor(const Tensor&)>> readers[] = {
          {table, [&](const Tensor& t) { return weighted(take(t, rows, 0)); }},
          {table,
           [&](const Tensor& t) {
             return weighted(take_along_axis(t, broadcast_to(reshape(rows, {3, 1}), {3, 3}), 0));
           }},
          {image,
           [&](const Tensor& t) {
             return weighted(make_node(Op::windows, WindowAttributes{{2, 2}, {1, 1}, {1, 1}}, {t}));
           }},
          {table,
           [&](const Tensor& t) {
             return weighted(broadcast_to(t, {3, 4, 3}));
           }},
      };
      for (const auto& [at, reader] : readers) {
        const Tensor gradient = grad(reader)(at);
        CHECK(gradient.type() == at.type());
        // Sums of whole numbers, of which each part is rounded and the sum once more.
        CHECK(difference(exact(gradient), grad(reader)(exact(at)), 2.02 * half_unit(dtype), 0) ==
              "");
      }
    }
}

TEST_CASE("forward and reverse mode of 16-bit products nest in any order",
          "[autograd][precision]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = random_tensor({4, 4}, device, 1, DType::bf16),
               dx = random_tensor({4, 4}, device, 2, DType::bf16);
  // Cubic in x.
  const auto loss = [](const Tensor& x) {
    const DType dtype = x.dtype();
    return sum(matmul(matmul(x, x, dtype), x));
  };
  const Tensor over = hvp(loss, x, dx);
  CHECK(over.type() == x.type());
  CHECK(difference(exact(over), hvp(loss, exact(x), exact(dx)), 0, 12 * 48 * 0x1p-8) == "");
  const auto along = [&](const Tensor& x) {
    return jvp(loss, std::tuple{x}, std::tuple{convert(dx, x.dtype())}).second;
  };
  CHECK(difference(exact(grad(along)(x)), grad(along)(exact(x)), 0, 12 * 48 * 0x1p-8) == "");
}

TEST_CASE("a batch of 16-bit products has the dtype and values of each", "[autograd][precision]") {
  for (const DType dtype : narrow_dtypes)
    for (const std::optional<DType> result : {std::optional<DType>(), std::optional(dtype)})
      for (const Example& each : examples(result)) {
        INFO(each.label << " of " << to_string(dtype) << (result ? ", rounded" : ""));
        const Device device = cpu({.threads = 1});
        const auto stack = [](const Tensor& a, const Tensor& b) {
          return concat({expand_dims(a, 0), expand_dims(b, 0)}, 0);
        };
        const Tensor a = random_tensor(each.a, device, 1, dtype),
                     a2 = random_tensor(each.a, device, 2, dtype),
                     b = random_tensor(each.b, device, 3, dtype),
                     b2 = random_tensor(each.b, device, 4, dtype);
        const double sums = (each.products + 1) * each.products * 0x1p-24;
        const auto check = [&](const Tensor& got, const Tensor& first, const Tensor& second) {
          CHECK(got.dtype() == first.dtype());
          CHECK(difference(exact(got), exact(stack(first, second)),
                           result ? 2 * half_unit(dtype) : 0, sums) == "");
        };
        check(vmap(each.f)(stack(a, a2), stack(b, b2)), each.f(a, b), each.f(a2, b2));
        check(vmap([&](const Tensor& x) { return each.f(x, b); })(stack(a, a2)), each.f(a, b),
              each.f(a2, b));
        check(vmap([&](const Tensor& w) { return each.f(a, w); })(stack(b, b2)), each.f(a, b),
              each.f(a, b2));
      }
}

TEST_CASE("the gradient of a 16-bit layer is one product per operand, without copies in f32",
          "[autograd][precision][plan]") {
  const Device device = cpu({.threads = 1});
  for (const DType dtype : narrow_dtypes) {
    const Tensor x = random_tensor({24, 40}, device, 1, dtype),
                 w = random_tensor({40, 56}, device, 2, dtype),
                 u = random_tensor({24, 56}, device, 3, DType::f32);
    const auto program = compile([](const Tensor& x, const Tensor& w, const Tensor& u) {
                           const auto layer = [](const Tensor& x, const Tensor& w) {
                             return matmul(convert(x, DType::f32), convert(w, DType::f32));
                           };
                           return vjp(layer, x, w).second(u);
                         }).program(x, w, u);
    INFO(to_string(program));
    CHECK(program.kernels.size() == 2);
    CHECK(program.arena_bytes == 0);
    for (const TensorType& output : program.outputs) CHECK(output.dtype == dtype);
  }
}
