// Functions that compile to maps and row reductions, on a Vulkan device against the reference
// backend: accuracy of sums, special values, and the corners of how rows are cut.
#include <cmath>
#include <limits>
#include <random>

#include "autograd/transforms.h"
#include "backends/reference/reference.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/vulkan/op/devices.h"
#include "tests/worst.h"

namespace {

using namespace fluxion;
using namespace fluxion::testing;

using Floats = std::vector<float>;

Floats random_floats(std::size_t count, float low, float high, std::uint32_t seed = 1) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  Floats values(count);
  for (float& value : values) value = uniform(engine);
  return values;
}

// What f gives for x of this shape, on a device.
template <class F>
Floats result_of(F f, const Floats& x, const Shape& shape, const Device& device) {
  return compile(f)(Tensor::from(x, shape, device)).template to_host<float>();
}

// f on every Vulkan device against the reference; the tolerance is relative to 1 + |want|.
template <class F>
void compare_rows(F f, const Floats& x, const Shape& shape, double tolerance) {
  const Floats want = result_of(f, x, shape, reference());
  if (op_devices().empty()) WARN("skipped: no software device");
  for (const OpDevice& each : op_devices()) {
    const Floats got = result_of(f, x, shape, each.device);
    INFO(each.name << ", " << to_string(shape));
    REQUIRE(got.size() == want.size());
    const auto close = [&](float x, float y) {
      return std::isnan(y)   ? std::isnan(x)
             : std::isinf(y) ? x == y
                             : std::abs(x - y) <= tolerance * (1 + std::abs(y));
    };
    for (std::size_t i = 0; i < want.size(); ++i) {
      if (close(got[i], want[i])) continue;
      FAIL("element " << i << ": " << got[i] << ", want " << want[i]);
    }
  }
}

constexpr double f32_epsilon = std::numeric_limits<float>::epsilon();

TEST_CASE("f32 sums err by at most 8 eps of the sum of magnitudes on Vulkan", "[vulkan][tape]") {
  // One long row, few, many; along the memory and across it.
  struct Case {
    Shape shape;
    Dims axes;
  };
  const std::vector<Case> cases{
      {{1, 500000}, {1}}, {{3, 70001}, {1}}, {{70000, 8}, {0}}, {{5001, 12}, {0}},
      {{40000}, {0}},     {{300, 129}, {1}}, {{129, 300}, {0}}, {{17, 33, 65}, {0, 2}},
      {{2000, 5}, {1}},   {{64, 4096}, {1}}, {{4096, 64}, {0}}, {{2, 1}, {1}},
  };
  for (const Case& each : cases) {
    const auto count = static_cast<std::size_t>(each.shape.elements());
    for (const bool same : {false, true}) {
      const Floats x = same ? Floats(count, 0.1f) : random_floats(count, -1, 1);
      const auto total = [&](const Tensor& t) { return sum(t, each.axes); };
      const auto magnitudes = [&](const Tensor& t) { return sum(abs(t), each.axes); };
      const Floats want = result_of(total, x, each.shape, reference());
      const Floats scale = result_of(magnitudes, x, each.shape, reference());
      for (const OpDevice& device : op_devices()) {
        const Floats got = result_of(total, x, each.shape, device.device);
        INFO(device.name << ", " << to_string(each.shape));
        double worst = 0;
        for (std::size_t i = 0; i < want.size(); ++i)
          worst = worse_of(worst, std::abs(double{got[i]} - want[i]) / (scale[i] * f32_epsilon));
        CHECK(worst <= 8);
      }
    }
  }
}

TEST_CASE("rows of every length are normalised on Vulkan", "[vulkan][tape]") {
  for (const std::int64_t length : {1,   2,   3,   4,   5,   31,  32,   33,   64,   100, 127,
                                    128, 129, 384, 511, 512, 513, 1000, 2048, 4099, 9000}) {
    const std::int64_t rows = length < 600 ? 37 : 3;
    const Shape shape{rows, length};
    const Floats x = random_floats(static_cast<std::size_t>(rows * length), -3, 3,
                                   static_cast<std::uint32_t>(length));
    compare_rows([](const Tensor& t) { return softmax(t); }, x, shape, 4e-6);
    compare_rows([](const Tensor& t) { return log_softmax(t); }, x, shape, 4e-6);
    compare_rows([](const Tensor& t) { return layer_norm(t, 1e-5); }, x, shape, 2e-5);
    compare_rows([](const Tensor& t) { return rms_norm(t, 1e-5); }, x, shape, 4e-6);
  }
}

TEST_CASE("rows that lie across the memory are normalised on Vulkan", "[vulkan][tape]") {
  for (const Shape& shape : {Shape{7, 40}, Shape{129, 64}, Shape{300, 33}, Shape{5, 9, 36}}) {
    const Floats x = random_floats(static_cast<std::size_t>(shape.elements()), -3, 3);
    const std::int64_t axis = shape.rank() - 2;
    compare_rows([=](const Tensor& t) { return softmax(t, axis); }, x, shape, 4e-6);
    compare_rows(
        [=](const Tensor& t) {
          return concat({max(t, {axis}, true), min(t, {axis}, true), mean(t, {axis}, true)}, axis);
        },
        x, shape, 4e-6);
  }
}

TEST_CASE("many reductions of one row are one pass on Vulkan", "[vulkan][tape]") {
  const Shape shape{9, 260};
  const Floats x = random_floats(9 * 260, -2, 2);
  compare_rows(
      [](const Tensor& t) {
        std::vector<Tensor> parts;
        for (int k = 1; k <= 12; ++k) {
          parts.push_back(mean(t * static_cast<double>(k), {1}, true));
          parts.push_back(max(t * (k % 2 ? 0.5 * k : -0.5 * k), {1}, true));
        }
        return concat(parts, 1);
      },
      x, shape, 4e-6);
}

TEST_CASE("NaN wins in max and min, and infinities stay in sums, on Vulkan", "[vulkan][tape]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (const Shape& shape : {Shape{6, 700}, Shape{6, 5}, Shape{6, 70001}}) {
    const std::int64_t length = shape[1];
    Floats x = random_floats(static_cast<std::size_t>(shape.elements()), -1, 1);
    const auto at = [&](std::int64_t row, std::int64_t column) -> float& {
      return x[static_cast<std::size_t>(row * length + column)];
    };
    at(0, 0) = std::nanf("");
    at(1, length - 1) = std::nanf("");
    at(2, length / 2) = infinity;
    at(3, 1) = -infinity;
    at(4, 0) = infinity, at(4, length - 1) = -infinity;
    for (const bool across : {false, true}) {
      const auto rows = [=](const Tensor& t) { return across ? transpose(t, {1, 0}) : t; };
      const Dims axes{across ? 0 : 1};
      compare_rows([=](const Tensor& t) { return max(rows(t), axes); }, x, shape, 0);
      compare_rows([=](const Tensor& t) { return min(rows(t), axes); }, x, shape, 0);
      compare_rows([=](const Tensor& t) { return sum(rows(t), axes); }, x, shape, 1e-4);
    }
    compare_rows([](const Tensor& t) { return softmax(t); }, x, shape, 4e-6);
  }
}

TEST_CASE("reductions over nothing give their identities on Vulkan", "[vulkan][tape]") {
  const Floats none;
  compare_rows([](const Tensor& t) { return sum(t, {1}) + 2; }, none, {5, 0}, 0);
  compare_rows([](const Tensor& t) { return max(t, {1}); }, none, {5, 0}, 0);
  compare_rows([](const Tensor& t) { return min(t, {1}); }, none, {5, 0}, 0);
  compare_rows([](const Tensor& t) { return sum(t, {1}); }, none, {0, 5}, 0);
  compare_rows([](const Tensor& t) { return t * 2; }, none, {0, 5}, 0);
}

TEST_CASE("what is stored of a row lives through the passes after it on Vulkan", "[vulkan][tape]") {
  // (With tanh computed before the barriers of the second pass, llvmpipe stored another number.)
  const auto of_rows = [](const Tensor& x) { return tanh(sqrt(square(max(x, {0}, true)) + 0.4)); };
  const auto all = [&](const Device& device) {
    const Shape shape{2, 4}, row{1, 4};
    const Tensor x = Tensor::from(Floats{0.3f, -1.2f, 0.8f, 2, 1.1f, -0.4f, 0.9f, -2}, shape,
                                  device),
                 dx = Tensor::from(random_floats(8, -1, 1), shape, device),
                 cotangent = Tensor::from(random_floats(4, -1, 1), row, device);
    const auto [y, dy, pulled] =
        compile([&](const Tensor& at, const Tensor& along, const Tensor& back) {
          const auto [value, tangent] = jvp(of_rows, std::tuple(at), std::tuple(along));
          return std::tuple(value, tangent, std::get<0>(vjp(of_rows, at).second(back)));
        })(x, dx, cotangent);
    Floats values = y.to_host<float>();
    for (const Tensor& more : {dy, pulled}) {
      const Floats own = more.to_host<float>();
      values.insert(values.end(), own.begin(), own.end());
    }
    return values;
  };
  const Floats want = all(reference());
  for (const OpDevice& each : op_devices()) {
    INFO(each.name);
    const Floats got = all(each.device);
    for (std::size_t i = 0; i < want.size(); ++i)
      CHECK(std::abs(got[i] - want[i]) <= 1e-5 * (1 + std::abs(want[i])));
  }
}

TEST_CASE("integers reduce exactly on Vulkan", "[vulkan][tape]") {
  const Shape shape{11, 3001};
  std::mt19937 engine(4);
  std::vector<std::int32_t> x(static_cast<std::size_t>(shape.elements()));
  for (std::int32_t& each : x) each = static_cast<std::int32_t>(engine());
  const auto all = [](const Tensor& t) {
    const Tensor u = convert(t, DType::u32);
    return concat({sum(t, {1}, true), max(t, {1}, true), min(t, {1}, true),
                   convert(sum(u, {1}, true), DType::i32), convert(max(u, {1}, true), DType::i32),
                   convert(min(u, {1}, true), DType::i32)},
                  1);
  };
  const auto want = compile(all)(Tensor::from(x, shape, reference())).to_host<std::int32_t>();
  for (const OpDevice& each : op_devices()) {
    INFO(each.name);
    CHECK(compile(all)(Tensor::from(x, shape, each.device)).to_host<std::int32_t>() == want);
  }
}

TEST_CASE("maps of odd sizes, of sixteen-bit numbers and booleans, on Vulkan", "[vulkan][tape]") {
  for (const std::int64_t size : {1, 2, 3, 4, 5, 63, 64, 65, 66, 67, 127, 511, 512, 513, 100003}) {
    const Floats x = random_floats(static_cast<std::size_t>(size), -3, 3);
    compare_rows([](const Tensor& t) { return tanh(t) * 2 + abs(t); }, x, {size}, 1e-6);
    compare_rows(
        [](const Tensor& t) {
          const Tensor half = convert(t, DType::f16), brain = convert(t * 3, DType::bf16);
          const Tensor positive = gt(t, 0);
          return where(positive, convert(half, DType::f32), convert(brain, DType::f32));
        },
        x, {size}, 0);
  }
  for (const Shape& shape : {Shape{7, 12}, Shape{12, 7}, Shape{3, 5, 8}, Shape{64, 64}}) {
    const Floats x = random_floats(static_cast<std::size_t>(shape.elements()), -3, 3);
    const std::int64_t last = shape.rank() - 1;
    compare_rows([=](const Tensor& t) { return swap_axes(t, last - 1, last) + 1; }, x, shape, 0);
    compare_rows([=](const Tensor& t) { return flip(t, {last}) - t; }, x, shape, 0);
    compare_rows([=](const Tensor& t) { return concat({t, t * 2}, last); }, x, shape, 0);
    compare_rows([=](const Tensor& t) { return concat({t, t * 2}, 0); }, x, shape, 0);
    Dims low(static_cast<std::size_t>(last + 1), 0), high = low;
    low[static_cast<std::size_t>(last)] = 1, high[0] = 2;
    compare_rows([=](const Tensor& t) { return pad(t, low, high, 0.5); }, x, shape, 0);
  }
}

}  // namespace
