// Chains of arithmetic, and pairs of functions, that run in one pass give the bits of the same ops
// run one at a time.
#include <cstring>
#include <functional>
#include <tuple>

#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// An expression of a full operand, one value per column, one per row and a scalar, that passes each
// intermediate result through `step`.
using Step = std::function<Tensor(const Tensor&)>;
Tensor expression(const Tensor& x, const Tensor& column, const Tensor& row, const Tensor& scalar,
                  const Step& step) {
  Tensor v = step(x + column);
  v = step(row - v);     // from the right
  v = step(v * x);       // an operand read twice
  v = step(v - scalar);  // splats
  v = step(scalar * v);
  const Tensor kept = v = step(v + row);  // read again below: it ends the chain
  v = step(v * 0.25);
  v = step(column - v);
  const Tensor side = step(step(x * row) - column);
  v = step(v * side);                                       // two chains meet
  for (int i = 0; i < 9; ++i) v = step(step(x - v) * row);  // longer than one pass takes
  return step(v + kept);
}

template <class T>
void check_bits(std::int64_t rows, std::int64_t columns) {
  CAPTURE(rows, columns);
  const Device device = cpu();
  constexpr DType dtype = std::is_same_v<T, float> ? DType::f32 : DType::f64;
  const auto values = [&](const Shape& shape, std::uint64_t seed) {
    return to_tensor(random_value(shape, -2, 2, seed), device, dtype);
  };
  const Tensor x = values({rows, columns}, 1), column = values({columns}, 2),
               row = values({rows, 1}, 3), scalar = values({}, 4);
  const Tensor at_once =
      compile([](const Tensor& x, const Tensor& column, const Tensor& row, const Tensor& scalar) {
        return expression(x, column, row, scalar, [](const Tensor& v) { return v; });
      })(x, column, row, scalar);
  const Tensor one_by_one = expression(x, column, row, scalar, [](const Tensor& v) {
    eval(v);
    return v;
  });
  const std::vector<T> got = at_once.to_host<T>(), expected = one_by_one.to_host<T>();
  REQUIRE(got.size() == expected.size());
  CHECK(std::memcmp(got.data(), expected.data(), got.size() * sizeof(T)) == 0);
}

}  // namespace

TEST_CASE("a chain of arithmetic has the bits of its ops one at a time", "[cpu][tape]") {
  for (const std::int64_t rows : {1, 3, 17})
    for (const std::int64_t columns : {1, 7, 16, 127, 128, 129, 1000}) {
      check_bits<float>(rows, columns);
      check_bits<double>(rows, columns);
    }
}

TEST_CASE("sigmoid and its slope in one pass have the bits of either alone", "[cpu][tape]") {
  const Device device = cpu({.threads = 1});
  for (const DType dtype : {DType::f32, DType::f64})
    for (const Shape& shape : {Shape{}, Shape{5}, Shape{3, 17}, Shape{40, 128}, Shape{2, 9000}}) {
      INFO(to_string(TensorType{shape, dtype}));
      const Tensor x = to_tensor(random_value(shape, -40, 40, 3), device, dtype);
      // In either order, in the middle of other work, and stored as they are.
      const auto both = compile([](const Tensor& x) {
        const Tensor value = sigmoid(x), y = x * 0.5, slope = sigmoid_slope(y);
        return std::tuple(value, sigmoid_slope(x), slope * sigmoid(y) + value, slope);
      })(x);
      const auto alone = [](const Tensor& result) {
        eval(result);
        return result;
      };
      const Tensor y = alone(x * 0.5), value = alone(sigmoid(x)), slope = alone(sigmoid_slope(y));
      CHECK(host_bytes(std::get<0>(both)) == host_bytes(value));
      CHECK(host_bytes(std::get<1>(both)) == host_bytes(sigmoid_slope(x)));
      CHECK(host_bytes(std::get<2>(both)) ==
            host_bytes(alone(alone(slope * alone(sigmoid(y))) + value)));
      CHECK(host_bytes(std::get<3>(both)) == host_bytes(slope));
    }
}

TEST_CASE("erfc and exp(-x^2) in one pass have the bits of either alone", "[cpu][tape]") {
  const Device device = cpu({.threads = 1});
  const auto alone = [](const Tensor& result) {
    eval(result);
    return result;
  };
  for (const DType dtype : {DType::f32, DType::f64})
    for (const Shape& shape : {Shape{}, Shape{5}, Shape{3, 17}, Shape{40, 128}, Shape{2, 9000}}) {
      INFO(to_string(TensorType{shape, dtype}));
      HostValue values = random_value(shape, -12, 12, 4);
      const double special[] = {INFINITY, -INFINITY, NAN, 0.0, -0.0};
      for (std::size_t i = 0; i < std::size(special) && i + 1 < values.values.size(); ++i)
        values.values[i] = special[i];
      const Tensor x = to_tensor(values, device, dtype);
      // In either order, with the square read elsewhere too, beside the exponential of the operand
      // itself and of another square.
      const auto all = compile([](const Tensor& x) {
        const Tensor bell = exp(-(x * x)), y = x * 0.5, square = y * y, tail = erfc(y);
        return std::tuple(bell, erfc(x), exp(-square) * tail + square, exp(y), exp(-(x * y)));
      })(x);
      const Tensor y = alone(x * 0.5), square = alone(y * y), bell = alone(exp(alone(-square)));
      CHECK(host_bytes(std::get<0>(all)) == host_bytes(exp(alone(-alone(x * x)))));
      CHECK(host_bytes(std::get<1>(all)) == host_bytes(erfc(x)));
      CHECK(host_bytes(std::get<2>(all)) ==
            host_bytes(alone(alone(bell * alone(erfc(y))) + square)));
      CHECK(host_bytes(std::get<3>(all)) == host_bytes(exp(y)));
      CHECK(host_bytes(std::get<4>(all)) == host_bytes(exp(alone(-alone(x * y)))));
    }
}
