#include "models/benchmark/self_test.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>

#include "autograd/transforms.h"
#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "models/benchmark/benchmark.h"
#include "models/layers/image.h"

namespace fluxion {
namespace {

using Tensors = std::vector<Tensor>;

struct Family {
  std::string name;
  double allowed;
  std::vector<TensorType> inputs;
  std::function<Tensors(const Tensors&)> compute;
};

// The same numbers on every device: f32 and its narrow forms in [-1, 1], small whole numbers.
Tensor input_of(const TensorType& type, std::uint32_t number, const Device& device) {
  const auto count = static_cast<std::size_t>(type.shape.elements());
  std::uint32_t state = 0x9e3779b9u * (number + 1);
  const auto next = [&] {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
  };
  if (type.dtype == DType::i32) {
    std::vector<std::int32_t> values(count);
    for (std::int32_t& value : values) value = static_cast<std::int32_t>(next() % 16);
    return Tensor::from(values, type.shape, device);
  }
  if (type.dtype == DType::u32) {
    std::vector<std::uint32_t> values(count);
    for (std::uint32_t& value : values) value = next();
    return Tensor::from(values, type.shape, device);
  }
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(next()) / 8388608.0f - 1.0f;
  const Tensor wide = Tensor::from(values, type.shape, device);
  return type.dtype == DType::f32 ? wide : convert(wide, type.dtype);
}

// f(x), its tangent along the inputs themselves, and the gradients of the sum of f's squares.
Tensors with_derivatives(const std::function<Tensor(const Tensors&)>& f, const Tensors& x) {
  const auto [y, dy] = jvp(f, x, x);
  Tensors all{y, dy};
  const Tensors gradients = grad([&](const Tensors& at) { return sum(square(f(at))); })(x);
  all.insert(all.end(), gradients.begin(), gradients.end());
  return all;
}

// A MeanFlow step: the loss, and the gradient of each parameter. Inputs: a key, data, labels, and
// the parameters.
Family step_family(std::string name, double allowed, const NetworkConfig& config,
                   const Shape& data) {
  Family family{std::move(name), allowed, {}, nullptr};
  family.inputs = {{{2}, DType::u32}, {data, DType::f32}, {{data[0]}, DType::i32}};
  for (const auto& [parameter, shape] : parameter_shapes(config))
    family.inputs.push_back({shape, DType::f32});
  family.compute = [config](const Tensors& x) {
    Parameters parameters;
    std::size_t next = 3;
    for (const auto& [parameter, shape] : parameter_shapes(config))
      parameters[parameter] = 0.3 * x[next++];
    FlowDraws draws = draw({.equal_share = 0.5}, x[1], {}, 0, x[0]);
    if (num_classes(config) > 0) draws.labels = {x[2], {}, num_classes(config)};
    const auto [loss, gradients] = value_and_grad([&](const Parameters& free) {
      return benchmark_loss(BenchmarkTask::meanflow, config, free, draws).loss;
    })(parameters);
    Tensors all{loss};
    for (const auto& [parameter, gradient] : gradients) all.push_back(gradient);
    return all;
  };
  return family;
}

TensorType f32(Shape shape) { return {std::move(shape), DType::f32}; }

std::vector<Family> make_families() {
  constexpr double exact = 0, close = 1e-6, usual = 1e-5, of_steps = 1e-4, of_halves = 1e-2;
  const TensorType key{{2}, DType::u32};
  std::vector<Family> all;
  const auto add = [&](std::string name, double allowed, std::vector<TensorType> inputs,
                       std::function<Tensors(const Tensors&)> compute) {
    all.push_back({std::move(name), allowed, std::move(inputs), std::move(compute)});
  };
  add("map: arithmetic", close, {f32({67, 45}), f32({45}), f32({67, 1})}, [](const Tensors& x) {
    return Tensors{(x[0] * x[1] + x[2]) / (square(x[0]) + 1.0) - maximum(x[0], x[1]) +
                   where(lt(x[0], x[2]), abs(x[0]), floor(4.0 * x[1]))};
  });
  add("map: functions", close, {f32({1003})}, [](const Tensors& x) {
    const Tensor y = abs(x[0]) + 0.01;
    return Tensors{exp(x[0]), expm1(x[0]), log(y),        log1p(y),       sin(9.0 * x[0]),
                   cos(x[0]), tanh(x[0]),  sigmoid(x[0]), erf(x[0]),      erfc(2.0 * x[0]),
                   sqrt(y),   rsqrt(y),    pow(y, x[0]),  atan2(x[0], y), hypot(x[0], y)};
  });
  add("map: views", exact, {f32({12, 10, 7})}, [](const Tensors& x) {
    return Tensors{
        transpose(x[0], {2, 0, 1}),
        concat({flip(x[0], {1}), pad(slice_axis(x[0], 1, 2, 9), {0, 1, 0}, {0, 2, 0})}, 0)};
  });
  add("map: whole numbers", exact, {{{501}, DType::i32}, {{501}, DType::u32}},
      [](const Tensors& x) {
        return Tensors{convert(x[0] * x[0] - 3.0 * x[0], DType::f32),
                       convert(shift_right(x[1], 5.0), DType::f32),
                       convert(ge(x[0], 7.0), DType::f32)};
      });
  add("map: 16-bit floats", of_halves, {{{515}, DType::bf16}, {{515}, DType::f16}},
      [](const Tensors& x) {
        return Tensors{convert(convert(x[0], DType::f32) * 1.5, DType::bf16),
                       convert(convert(x[1], DType::f32) * 1.5, DType::f16)};
      });
  add("rows: softmax", usual, {f32({33, 77})}, [](const Tensors& x) {
    return with_derivatives([](const Tensors& at) { return softmax(3.0 * at[0]); }, x);
  });
  add("rows: norms", usual, {f32({33, 64}), f32({64})}, [](const Tensors& x) {
    return with_derivatives(
        [](const Tensors& at) {
          return layer_norm(at[0], 1e-5, at[1]) + rms_norm(at[0], 1e-5, at[1]);
        },
        x);
  });
  add("rows: long and across", usual, {f32({3, 40001}), f32({517, 24})}, [](const Tensors& x) {
    return Tensors{sum(x[0], {1}), max(x[0], {1}), mean(x[1], {0}), min(x[1], {0})};
  });
  add("product", usual, {f32({67, 45}), f32({45, 53})},
      [](const Tensors& x) { return Tensors{matmul(x[0], x[1])}; });
  add("product: large", usual, {f32({128, 160}), f32({160, 128})},
      [](const Tensors& x) { return Tensors{matmul(x[0], x[1])}; });
  add("product: long sums", usual, {f32({9, 2049}), f32({2049, 11})},
      [](const Tensors& x) { return Tensors{matmul(x[0], x[1])}; });
  add("product: batched views", usual, {f32({3, 17, 20}), f32({3, 13, 20})},
      [](const Tensors& x) { return Tensors{matmul(x[0], swap_axes(x[1], 1, 2))}; });
  add("product: layer, tangent, gradients", usual, {f32({37, 24}), f32({24, 40}), f32({40})},
      [](const Tensors& x) {
        return with_derivatives(
            [](const Tensors& at) { return silu(matmul(at[0], at[1]) + at[2]); }, x);
      });
  for (const DType dtype : {DType::bf16, DType::f16})
    add("product: " + std::string(to_string(dtype)), usual, {{{40, 64}, dtype}, {{64, 24}, dtype}},
        [](const Tensors& x) { return Tensors{matmul(x[0], x[1], DType::f32)}; });
  add("convolution", usual, {f32({2, 9, 8, 6}), f32({3, 3, 6, 10})}, [](const Tensors& x) {
    return with_derivatives(
        [](const Tensors& at) {
          return conv2d(at[0], at[1], {.low = {1, 1}, .high = {1, 1}});
        },
        x);
  });
  add("attention", usual, {f32({2, 21, 16}), f32({2, 19, 16}), f32({2, 19, 16})},
      [](const Tensors& x) {
        return with_derivatives([](const Tensors& at) { return attention(at[0], at[1], at[2]); },
                                x);
      });
  add("index: take and add", usual, {f32({19, 12}), {{40}, DType::i32}, f32({40, 12})},
      [](const Tensors& x) {
        return Tensors{take(x[0], x[1], 0), index_add(x[0], x[1], x[2], 0)};
      });
  add("index: scans and searches", usual, {f32({7, 301})}, [](const Tensors& x) {
    return Tensors{cumsum(x[0], 1), convert(argmax(x[0], 1), DType::f32)};
  });
  add("random bits", exact, {key}, [](const Tensors& x) {
    const Tensor bits = random_bits(x[0], {1001});
    return Tensors{convert(shift_right(bits, 16.0), DType::f32), uniform(x[0], {777})};
  });
  add("random normals", usual, {key},
      [](const Tensors& x) { return Tensors{normal(x[0], {999})}; });
  all.push_back(step_family(
      "training step: MLP", of_steps,
      MlpConfig{.data_dim = 2, .hidden = {16, 16}, .time_features = 8, .time_scale = 1000},
      {8, 2}));
  all.push_back(step_family("training step: DiT", of_steps,
                            DitConfig{.image_size = 8,
                                      .channels = 1,
                                      .patch_size = 4,
                                      .hidden_size = 16,
                                      .depth = 1,
                                      .num_heads = 2,
                                      .num_classes = 16,
                                      .frequency_embedding_size = 16},
                            {2, 8, 8, 1}));
  return all;
}

const std::vector<Family>& families() {
  static const std::vector<Family> all = make_families();
  return all;
}

std::vector<std::vector<float>> values_on(const Family& family, const Device& device) {
  Tensors inputs;
  for (std::size_t i = 0; i < family.inputs.size(); ++i)
    inputs.push_back(input_of(family.inputs[i], static_cast<std::uint32_t>(i), device));
  std::vector<std::vector<float>> values;
  for (const Tensor& result : compile(family.compute)(inputs))
    values.push_back(
        (result.dtype() == DType::f32 ? result : convert(result, DType::f32)).to_host<float>());
  return values;
}

// The largest difference as a share of the largest element; infinite where one is NaN.
double difference_of(const std::vector<float>& got, const std::vector<float>& want) {
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(want[i])));
    const double apart = std::abs(static_cast<double>(got[i]) - want[i]);
    if (!(apart <= difference)) difference = std::isnan(apart) ? HUGE_VAL : apart;
  }
  return difference == 0 ? 0 : difference / largest;
}

}  // namespace

const std::vector<std::string>& self_test_families() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Family& family : families()) all.push_back(family.name);
    return all;
  }();
  return names;
}

SelfTestResult self_test(std::size_t number, const Device& device, const Device& defining) {
  const Family& family = families().at(number);
  SelfTestResult result{.allowed = family.allowed};
  const auto start = std::chrono::steady_clock::now();
  try {
    const auto got = values_on(family, device);
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const auto want = values_on(family, defining);
    for (std::size_t i = 0; i < want.size(); ++i)
      result.error = std::max(result.error, difference_of(got.at(i), want[i]));
    result.passed = result.error <= result.allowed;
    if (!result.passed)
      result.problem = "differs from the reference by " + scientific_text(result.error, 1) +
                       " of the largest element, at most " + scientific_text(result.allowed, 1) +
                       " is right";
  } catch (const Error& error) {
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    result.problem = error.what();
  }
  return result;
}

}  // namespace fluxion
