// Means and what is subtracted from them: exact where they can be, and never worse than the
// rounding of one sum.
#include <cmath>
#include <random>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "engine/graph/ops.h"
#include "models/layers/image.h"
#include "models/optimisers/optimiser.h"
#include "tests/catch.h"
#include "tests/op_examples.h"

using namespace fluxion;
using fluxion::testing::host_values;

namespace {

double largest_magnitude(const Tensor& x) {
  double result = 0;
  for (const double value : host_values(x)) result = std::max(result, std::abs(value));
  return result;
}

Tensor wide_of(const Tensor& x) { return Tensor::from(host_values(x), x.shape(), reference()); }

// Normal numbers around a mean.
Tensor around(double mean, const Shape& shape, const Device& device, DType dtype = DType::f32) {
  std::mt19937_64 random(5);
  std::normal_distribution<double> draw(mean, 1);
  std::vector<float> values;
  for (std::int64_t i = 0; i < shape.elements(); ++i)
    values.push_back(static_cast<float>(draw(random)));
  return Tensor::from(values, shape, device).to(dtype);
}

}  // namespace

TEST_CASE("layer_norm of equal elements is zero, however large they are", "[means]") {
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const std::int64_t width : {1, 3, 384, 1000, 4096})
      for (const double value : {123456.7, -3.3e-5, 1e9, 0.1}) {
        INFO(device.name() << ", " << width << " times " << value);
        const Tensor x = full({3, width}, value, DType::f32, device);
        CHECK(largest_magnitude(layer_norm(x, 1e-5)) <= 1e-4);
        CHECK(largest_magnitude(centred(x, {-1})) == 0);
        CHECK(largest_magnitude(var(x, {-1})) == 0);
      }
}

TEST_CASE("layer_norm far from zero is as exact as its operand", "[means]") {
  const Device device = cpu({.threads = 1}), exact = reference();
  for (const double mean : {0.0, 100.0, 1e4}) {
    const Tensor x = around(mean, {4, 384}, device);
    const Tensor wide = around(mean, {4, 384}, exact, DType::f64);  // the same f32 numbers
    CHECK(fluxion::testing::difference(wide_of(layer_norm(x, 1e-6)), layer_norm(wide, 1e-6), 0,
                                       4e-6) == "");
    CHECK(fluxion::testing::difference(wide_of(var(x, {-1})), var(wide, {-1}), 2e-6, 0) == "");
    const auto derivative = [](const Tensor& at) {
      return grad([](const Tensor& y) { return sum(sin(layer_norm(y, 1e-6))); })(at);
    };
    CHECK(fluxion::testing::difference(wide_of(derivative(x)), derivative(wide), 0, 2e-5) == "");
  }
}

TEST_CASE("group_norm is as exact as one sum over its group", "[means]") {
  const Device device = cpu({.threads = 1}), exact = reference();
  for (const std::int64_t groups : {1, 2, 4})
    for (const double value : {3.0, 1024.0, -0.125})  // sums that are exact
      CHECK(largest_magnitude(
                group_norm(full({2, 16, 16, 12}, value, DType::f32, device), groups, 1e-5)) == 0);
  for (const std::int64_t size : {7, 8, 32})
    for (const double value : {123456.7, 1e6 / 3, 1234.567, 0.1, -3.3e-5, 1e9}) {
      INFO(size << " x " << size << " pixels of " << value);
      CHECK(largest_magnitude(
                group_norm(full({2, size, size, 12}, value, DType::f32, device), 4, 1e-5)) <= 1e-3);
    }
  for (const double mean : {0.0, 100.0}) {
    const Shape shape{2, 8, 8, 12};
    const Tensor x = around(mean, shape, device);
    const Tensor wide = around(mean, shape, exact, DType::f64);
    const auto norm = [](const Tensor& at) { return group_norm(at, 3, 1e-6); };
    CHECK(fluxion::testing::difference(wide_of(norm(x)), norm(wide), 0, 4e-5) == "");
    const auto derivative = [&](const Tensor& at) {
      return grad([&](const Tensor& y) { return sum(sin(norm(y))); })(at);
    };
    CHECK(fluxion::testing::difference(wide_of(derivative(x)), derivative(wide), 0, 2e-4) == "");
  }
}

TEST_CASE("group_norm of an image without pixels or samples is one too", "[means]") {
  for (const Device& device : {cpu({.threads = 1}), reference()})
    for (const Shape& shape : {Shape{2, 0, 3, 4}, Shape{2, 3, 0, 4}, Shape{0, 2, 3, 4}}) {
      const Tensor gamma = full({4}, 2, DType::f32, device), x = zeros(shape, DType::f32, device);
      const auto norm = [&](const Tensor& scale) { return group_norm(x, 2, 1e-5, scale, scale); };
      CHECK(norm(gamma).shape() == shape);
      CHECK(norm(gamma).to_host<float>().empty());
      const Tensor slope = grad([&](const Tensor& scale) { return sum(norm(scale)); })(gamma);
      CHECK(host_values(slope) == std::vector<double>(4, 0));
    }
}

TEST_CASE("a mean divides by the number of elements", "[means]") {
  const Device device = cpu({.threads = 1});
  for (const std::int64_t count : {3, 7, 10, 49, 384, 1000}) {
    // A sum that is exact, of a mean that is too.
    const Tensor x = full({count}, 5, DType::f32, device);
    CHECK(mean(x).item<float>() == 5);
    CHECK(host_values(rms_norm(reshape(x, {1, count}), 0))[0] == Approx(1).epsilon(1e-7));
  }
}

TEST_CASE("an average with a decay close to 1 moves by exactly what is left", "[means]") {
  const Device device = cpu({.threads = 1});
  for (const double decay : {0.9999, 0.99999, 0.999999, 0.9999999}) {
    // Far into a run, so that the decay itself is what counts.
    TrainState state = make_train_state({{"w", full({4}, 0, DType::f32, device)}});
    state.parameters["w"] = full({4}, 1, DType::f32, device);
    state.step = Tensor::from(std::vector<std::int32_t>{1'000'000'000}, {}, device);
    const Parameters none = {{"w", full({4}, 0, DType::f32, device)}};
    const TrainState next =
        update({.ema_decays = {decay}}, state, none, full({}, 0, DType::f32, device)).state;
    // The warm-up's rate, 9 / (n + 10), is smaller than every 1 - decay here.
    CHECK(host_values(next.ema[0].at("w"))[0] == Approx(1 - decay).epsilon(1e-6));
  }
}

TEST_CASE("moments with a decay close to 1 settle at what they average", "[means]") {
  const Device device = cpu({.threads = 1});
  for (const double beta : {0.9, 0.999, 0.99999, 0.0}) {
    // m = decay m + (1 - decay) g has the fixed point g; v the fixed point g^2.
    TrainState state = make_train_state({{"w", full({4}, 0, DType::f32, device)}});
    state.m["w"] = full({4}, 3, DType::f32, device);
    state.v["w"] = full({4}, 9, DType::f32, device);
    const Parameters gradient = {{"w", full({4}, 3, DType::f32, device)}};
    const TrainState next =
        update({.beta1 = beta, .beta2 = beta}, state, gradient, full({}, 0, DType::f32, device))
            .state;
    CHECK(host_values(next.m.at("w"))[0] == 3);
    CHECK(host_values(next.v.at("w"))[0] == 9);
    // And away from it they move by 1 - decay of the distance.
    state.m["w"] = full({4}, 0, DType::f32, device);
    const TrainState moved =
        update({.beta1 = beta, .beta2 = beta}, state, gradient, full({}, 0, DType::f32, device))
            .state;
    CHECK(host_values(moved.m.at("w"))[0] == Approx((1 - beta) * 3).epsilon(1e-6));
  }
}
