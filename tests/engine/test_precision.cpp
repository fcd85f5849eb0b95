// Products of 16-bit operands: dtypes, values on every backend, and what the planner makes of
// conversions beside them.
#include <algorithm>
#include <cmath>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/graph/ops.h"
#include "models/layers/image.h"
#include "tests/catch.h"
#include "tests/compiled_program.h"
#include "tests/error_message.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

const DType narrow_dtypes[] = {DType::bf16, DType::f16};

Tensor in_f32(const Tensor& x) { return convert(x, DType::f32); }
// The same in memory: a product of it reads f32.
Tensor widened(const Tensor& x) {
  Tensor wide = in_f32(x);
  eval(wide);
  return wide;
}

// No buffer of the program's own holds f32.
bool all_temporaries_narrow(const Program& program) {
  return std::all_of(program.buffers.begin(), program.buffers.end(), [](const BufferSlot& slot) {
    return slot.kind != BufferKind::temporary || size_of(slot.type.dtype) == 2;
  });
}

template <class F>
void check_refused(F f, const std::string& message) {
  CHECK_THAT(message_of<DTypeError>(f), has_text(message) && has_text("test_precision.cpp"));
}

}  // namespace

TEST_CASE("products take 16-bit operands and give their sum in f32, or rounded as asked",
          "[engine][precision]") {
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const DType a : {DType::bf16, DType::f16, DType::f32})
      for (const DType b : {DType::bf16, DType::f16, DType::f32}) {
        INFO(device.name() << ": " << to_string(a) << " x " << to_string(b));
        const Tensor x = random_tensor({3, 1, 5, 19}, device, 1, a),
                     y = random_tensor({2, 19, 7}, device, 2, b);
        const Tensor product = matmul(x, y);
        CHECK(product.type() == TensorType{{3, 2, 5, 7}, DType::f32});
        CHECK(difference(product, matmul(widened(x), widened(y)), 0, 0) == "");
        for (const DType result : {DType::bf16, DType::f16, DType::f32}) {
          const Tensor rounded = matmul(x, y, result);
          CHECK(rounded.dtype() == result);
          CHECK(difference(rounded, convert(product, result), 0, 0) == "");
        }
      }
}

TEST_CASE("a sum of many small 16-bit products is not swallowed: it is accumulated in f32",
          "[engine][precision]") {
  // 1 + 4095 * 2^-12, of which bf16 sums would keep the 1.
  std::vector<float> row(4096, 0x1p-12f);
  row[0] = 1;
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const DType dtype : narrow_dtypes) {
      const Tensor x = convert(Tensor::from(row, {1, 4096}, device), dtype);
      const Tensor one = convert(full({4096, 1}, 1, DType::f32, device), dtype);
      CHECK(matmul(x, one).item<float>() == 1 + 4095 * 0x1p-12f);
    }
}

TEST_CASE("the CPU's products of 16-bit operands are the reference's", "[engine][precision]") {
  for (const DType dtype : narrow_dtypes)
    for (const Shape& sizes :
         {Shape{1, 1, 1}, Shape{17, 33, 19}, Shape{40, 300, 70}, Shape{0, 4, 3}, Shape{4, 0, 3}}) {
      const auto product = [&](const Device& device) {
        return matmul(random_tensor({sizes[0], sizes[1]}, device, 3, dtype),
                      random_tensor({sizes[1], sizes[2]}, device, 4, dtype));
      };
      // Sums of k products of numbers up to 1: (k + 1) half units in the last place of f32.
      const double bound =
          static_cast<double>(sizes[1] + 1) * static_cast<double>(sizes[1]) * 0x1p-24;
      CHECK(difference(product(cpu({.threads = 1})), product(reference()), 0, bound) == "");
    }
}

TEST_CASE("convolutions take 16-bit operands like products", "[engine][precision]") {
  struct Example {
    Shape image, weight;
    ConvolutionOptions options;
    bool transposed = false;
  };
  const Example examples[] = {
      {{2, 6, 5, 3}, {3, 3, 3, 4}, {.low = {1, 1}, .high = {1, 1}}},
      {{1, 7, 6, 4}, {2, 2, 2, 6}, {.stride = {2, 1}, .dilation = {1, 2}, .groups = 2}},
      {{2, 5, 5, 3}, {3, 3, 1, 3}, {.low = {1, 1}, .high = {1, 1}, .groups = 3}},
      {{1, 4, 4, 3}, {3, 3, 3, 2}, {.stride = {2, 2}, .low = {1, 1}, .high = {1, 1}}, true},
  };
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const Example& each : examples)
      for (const DType dtype : narrow_dtypes) {
        const Tensor x = random_tensor(each.image, device, 5, dtype),
                     w = random_tensor(each.weight, device, 6, dtype);
        const auto of = [&](const Tensor& image, const Tensor& weight,
                            std::optional<DType> result) {
          ConvolutionOptions options = each.options;
          options.result = result;
          return each.transposed ? conv2d_transpose(image, weight, options)
                                 : conv2d(image, weight, options);
        };
        const Tensor y = of(x, w, {});
        CHECK(y.dtype() == DType::f32);
        CHECK(difference(y, of(widened(x), widened(w), {}), 0, 0) == "");
        CHECK(difference(of(x, w, dtype), convert(y, dtype), 0, 0) == "");
      }
}

TEST_CASE("a product whose dtypes don't go together is refused at the call",
          "[engine][precision]") {
  const Device device = cpu({.threads = 1});
  const auto x = [&](DType dtype) { return zeros({3, 3}, dtype, device); };
  check_refused([&] { matmul(x(DType::bf16), x(DType::f64)); }, "f64 meets only f64");
  check_refused([&] { matmul(x(DType::f64), x(DType::f32)); }, "f64 meets only f64");
  check_refused([&] { matmul(x(DType::i32), x(DType::i32)); }, "bf16, f16, f32 or f64");
  check_refused([&] { matmul(x(DType::bf16), x(DType::u8)); }, "bf16, f16, f32 or f64");
  check_refused([&] { matmul(x(DType::bf16), x(DType::bf16), DType::f64); }, "f32, bf16 or f16");
  check_refused([&] { matmul(x(DType::f32), x(DType::f32), DType::i32); }, "f32, bf16 or f16");
  check_refused([&] { matmul(x(DType::f64), x(DType::f64), DType::f32); }, "of f64 sums is f64");
  check_refused(
      [&] {
        make_node(Op::matmul, ContractAttributes{DType::bf16, DType::bf16},
                  {x(DType::bf16), x(DType::bf16)});
      },
      "summed in f32");
  check_refused([&] { add(x(DType::bf16), x(DType::bf16)); }, "wants f32, f64, i32 or u32");
}

TEST_CASE("a conversion to f32 under a product folds into its operand",
          "[engine][precision][plan]") {
  const Device device = cpu({.threads = 1});
  for (const DType dtype : narrow_dtypes) {
    const Tensor x = random_tensor({24, 40}, device, 7, dtype),
                 w = random_tensor({56, 40}, device, 8, dtype),
                 bias = random_tensor({56}, device, 9, DType::f32);
    // The layer of mixed-precision training: storage in 16 bits, arithmetic in f32.
    const auto layer = [](const Tensor& x, const Tensor& w, const Tensor& bias) {
      return matmul(in_f32(x), swap_axes(in_f32(w), 0, 1)) + bias;
    };
    const Program program = program_of(layer, x, w, bias);
    INFO(to_string(program));
    REQUIRE(program.kernels.size() == 1);
    CHECK(program.arena_bytes == 0);
    const auto& kernel = std::get<ContractKernel>(program.kernels[0]);
    CHECK((kernel.lhs == dtype && kernel.rhs == dtype && kernel.accumulate == DType::f32));
    CHECK_THAT(to_string(program),
               Catch::Contains("contract " + std::string(to_string(dtype)) + " x " +
                               std::string(to_string(dtype)) + " -> f32"));
    // One operand alone.
    const Program mixed =
        program_of([](const Tensor& x, const Tensor& w) { return matmul(x, in_f32(w)); },
                   random_tensor({3, 56}, device, 1, DType::f32), w);
    CHECK(mixed.kernels.size() == 1);
    CHECK(std::get<ContractKernel>(mixed.kernels[0]).rhs == dtype);
    CHECK(difference(compile(layer)(x, w, bias),
                     matmul(widened(x), swap_axes(widened(w), 0, 1)) + bias, 0, 0) == "");
  }
}

TEST_CASE("a conversion of a product to 16 bits is a store of its epilogue",
          "[engine][precision][plan]") {
  const Device device = cpu({.threads = 1});
  for (const DType dtype : narrow_dtypes) {
    const Tensor x = random_tensor({24, 40}, device, 7, dtype),
                 w = random_tensor({40, 56}, device, 8, dtype),
                 v = random_tensor({56, 16}, device, 9, dtype);
    for (const bool by_attribute : {false, true}) {
      const auto product = [=](const Tensor& a, const Tensor& b) {
        return by_attribute ? matmul(a, b, dtype) : convert(matmul(a, b), dtype);
      };
      const Program one = program_of(product, x, w);
      INFO(to_string(one));
      CHECK(one.kernels.size() == 1);
      CHECK(one.arena_bytes == 0);
    }
    // Two layers: what lies between them is 16 bits wide.
    const auto network = [=](const Tensor& x, const Tensor& w, const Tensor& v) {
      const Tensor hidden = convert(gelu_tanh(matmul(x, w)), dtype);
      return convert(matmul(in_f32(hidden), in_f32(v)), dtype);
    };
    const Program two = program_of(network, x, w, v);
    INFO(to_string(two));
    CHECK(two.kernels.size() == 2);
    CHECK(two.arena_bytes == 24 * 56 * 2);
    CHECK(all_temporaries_narrow(two));
    Tensor hidden = convert(gelu_tanh(matmul(widened(x), widened(w))), dtype);
    eval(hidden);
    CHECK(difference(compile(network)(x, w, v), convert(matmul(widened(hidden), widened(v)), dtype),
                     0, 0) == "");
  }
}

TEST_CASE("a 16-bit convolution makes no f32 copy of its image or weight",
          "[engine][precision][plan]") {
  const Device device = cpu({.threads = 1});
  const ConvolutionOptions padded{.low = {1, 1}, .high = {1, 1}};
  for (const DType dtype : narrow_dtypes) {
    const Tensor x = random_tensor({2, 8, 8, 16}, device, 7, dtype),
                 w = random_tensor({3, 3, 16, 32}, device, 8, dtype);
    const Program converted = program_of(
        [=](const Tensor& x, const Tensor& w) { return conv2d(in_f32(x), in_f32(w), padded); }, x,
        w);
    const Program narrow =
        program_of([=](const Tensor& x, const Tensor& w) { return conv2d(x, w, padded); }, x, w);
    INFO(to_string(converted));
    CHECK(converted.kernels.size() == 2);  // the padded image and the product
    CHECK(converted.arena_bytes == 2 * 10 * 10 * 16 * 2);
    CHECK(all_temporaries_narrow(converted));
    CHECK(narrow == converted);
  }
}

TEST_CASE("a product rounded to 16 bits is read as what was stored, not as the sum",
          "[engine][precision][plan]") {
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const DType dtype : narrow_dtypes) {
      const Tensor x = random_tensor({24, 40}, device, 7, dtype),
                   w = random_tensor({40, 56}, device, 8, dtype);
      const auto rounded = [=](const Tensor& x, const Tensor& w) {
        return in_f32(matmul(x, w, dtype)) * 3.0;
      };
      const Tensor y = compile(rounded)(x, w);
      Tensor stored = matmul(x, w, dtype);
      eval(stored);
      CHECK(difference(y, in_f32(stored) * 3.0, 0, 0) == "");
      CHECK(difference(y, matmul(x, w) * 3.0, 0, 0) != "");
    }
}

TEST_CASE("products of one shape but of different dtypes stay kernels of their own",
          "[engine][precision][plan]") {
  const Device device = cpu({.threads = 1});
  const Tensor x = random_tensor({24, 40}, device, 7, DType::bf16),
               z = random_tensor({24, 40}, device, 7, DType::f16),
               w = random_tensor({40, 56}, device, 8, DType::bf16);
  const auto both = [](const Tensor& x, const Tensor& z, const Tensor& w) {
    return matmul(x, w) + matmul(z, w);
  };
  const Program program = program_of(both, x, z, w);
  CHECK(program.kernels.size() == 2);
  CHECK(difference(compile(both)(x, z, w),
                   matmul(widened(x), widened(w)) + matmul(widened(z), widened(w)), 0, 0) == "");
  CHECK(program_of(both, x, random_tensor({24, 40}, device, 9, DType::bf16), w).kernels.size() ==
        1);
}
