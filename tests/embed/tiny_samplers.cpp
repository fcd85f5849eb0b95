#include "tests/embed/tiny_samplers.h"

#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/export/sample_noise.h"
#include "engine/graph/ops.h"

namespace fluxion::testing {

namespace {

Tensor numbers_like(const Shape& shape, double start, const Device& device) {
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(start + 0.37 * static_cast<double>(i * 7919 % 23) / 23 - 0.18);
  return Tensor::from(values, shape, device);
}

struct Argument {
  std::string name;
  std::function<TensorType(std::int64_t batch)> type;
};
TensorType scalar(std::int64_t) { return {{}, DType::f32}; }

// The graph of a function of these arguments, for any batch.
BatchedGraph batched_graph(
    const std::vector<Argument>& arguments, const std::vector<StoredValue>& results,
    const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& function) {
  const Device device = cpu({.threads = 1});
  return batched([&](std::int64_t batch) {
    std::vector<Tensor> examples;
    std::vector<StoredValue> names;
    for (const Argument& argument : arguments) {
      const TensorType type = argument.type(batch);
      examples.push_back(zeros(type.shape, type.dtype, device));
      names.push_back({argument.name, "primal"});
    }
    const TracedParameters parameters(examples);
    return store("step", names, results, parameters.tensors(), function(parameters.tensors()));
  });
}

void add_weight(StoredSampler& sampler, std::vector<std::byte>& storage, const std::string& name,
                const Tensor& value) {
  const std::vector<std::byte> bytes = encoded(value.to_host<float>(), WeightEncoding::f32);
  storage.insert(storage.end(), bytes.begin(), bytes.end());
  sampler.weights.push_back({name, value.shape(), WeightEncoding::f32, {}});
}

std::vector<std::byte> finished(StoredSampler sampler, const std::vector<std::byte>& storage) {
  std::size_t at = 0;
  for (StoredWeight& weight : sampler.weights) {
    const auto bytes = static_cast<std::size_t>(weight.shape.elements()) * sizeof(float);
    weight.bytes = std::span(storage).subspan(at, bytes);
    at += bytes;
  }
  return serialise(sampler);
}

}  // namespace

TinyGenerator tiny_generator(std::int64_t steps, Shape image) {
  constexpr std::int64_t classes = 3;
  const Device device = cpu({.threads = 1});
  const std::int64_t pixels = image.elements();
  const Tensor mix = numbers_like({pixels, pixels}, 0, device),
               rows = numbers_like({classes + 1, pixels}, 0.2, device);
  const auto network = [pixels](const Tensor& mix_, const Tensor& rows_, const Tensor& z,
                                const Times& times, const Tensor& labels) {
    const Tensor flat = reshape(z, {z.size(0), pixels});
    const Tensor time = expand_dims(times.t - 0.5 * times.r, 1);
    return reshape(tanh(matmul(flat, mix_) + take(rows_, labels, 0) + time), z.shape());
  };
  SamplerOptions options;
  options.kind = SamplerKind::meanflow;
  options.steps = steps;
  Sampler sampler(Predictor{[=](const Tensor& z, const Times& times, const Tensor& labels) {
                              return network(mix, rows, z, times, labels);
                            },
                            {},
                            Prediction::average_velocity},
                  image, classes, DType::f32, device, options);

  StoredSampler stored;
  stored.name = "tiny images";
  stored.sample_shape = image;
  stored.classes = classes;
  stored.class_names = {"a round one", "a square one", "\u00e9toile"};
  stored.usual_classes = {2, 0};
  stored.open_class = true;
  stored.evaluations = static_cast<double>(steps);
  std::vector<std::byte> storage;
  add_weight(stored, storage, "mix", mix);
  add_weight(stored, storage, "rows", rows);
  stored.forms.push_back(
      {batched_graph(
           {{"mix", [&](auto) { return mix.type(); }},
            {"rows", [&](auto) { return rows.type(); }},
            {"z",
             [&](std::int64_t batch) {
               return TensorType(with_leading_axis(batch, image), DType::f32);
             }},
            {"t", scalar},
            {"s", scalar},
            {"labels", [](std::int64_t batch) { return TensorType({batch}, DType::i32); }}},
           {{"z", "primal"}},
           [&](const std::vector<Tensor>& x) -> std::vector<Tensor> {
             return {sampler_step(
                 SamplerKind::meanflow,
                 [&](const Tensor& z, const Times& times, const Tensor& labels) {
                   return network(x[0], x[1], z, times, labels);
                 },
                 x[2], x[3], x[4], x[5])};
           }),
       {}});
  for (std::int64_t i = 0; i < steps; ++i) {
    const auto time = [&](std::int64_t at) {
      return 1 - static_cast<double>(at) / static_cast<double>(steps);
    };
    stored.steps.push_back({0, {time(i), time(i + 1)}});
  }
  return {sampler, finished(stored, storage)};
}

namespace {
constexpr std::uint32_t restless_draws[] = {0, 3};
constexpr double restless_numbers[] = {0.75, -0.5};
}  // namespace

std::vector<std::byte> restless_sampler() {
  const auto batch_of_three = [](std::int64_t batch) { return TensorType({batch, 3}, DType::f32); };
  StoredSampler stored;
  stored.sample_shape = {3};
  stored.scale = 2.5;
  stored.evaluations = 2;
  stored.start.push_back({batched_graph({{"z", batch_of_three}}, {{"m", "primal"}},
                                        [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
                                          return {2.0 * x[0]};
                                        }),
                          {}});
  stored.forms.push_back(
      {batched_graph({{"z", batch_of_three},
                      {"m", batch_of_three},
                      {"number", scalar},
                      {"draw 0", batch_of_three},
                      {"draw 3", batch_of_three}},
                     {{"z", "primal"}, {"m", "primal"}},
                     [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
                       return {x[0] + 0.5 * x[1] + x[2] * x[3] + 0.25 * x[4], x[1] - x[0]};
                     }),
       {std::begin(restless_draws), std::end(restless_draws)}});
  for (const double number : restless_numbers) stored.steps.push_back({0, {number}});
  return finished(stored, {});
}

std::vector<float> restless_samples(std::uint64_t seed, std::int64_t first, std::int64_t count) {
  const Device device = cpu({.threads = 1});
  const NoiseKeys keys = noise_keys(seed, device);
  SampleNoise noise({3}, DType::f32, device);
  const auto draw = [&](const Tensor& key) {
    std::vector<float> values(static_cast<std::size_t>(count) * 3);
    noise.draw(key, first, count, values);
    return values;
  };
  std::vector<float> z = draw(keys.of_start), memory(z.size());
  for (std::size_t i = 0; i < z.size(); ++i) memory[i] = 2 * (z[i] *= 2.5f);
  for (std::uint32_t step = 0; step < std::size(restless_numbers); ++step) {
    const Tensor of_step = fold_in(keys.of_steps, step);
    const std::vector<float> draw0 = draw(fold_in(of_step, restless_draws[0])),
                             draw3 = draw(fold_in(of_step, restless_draws[1]));
    for (std::size_t i = 0; i < z.size(); ++i) {
      const float before = z[i];
      z[i] += 0.5f * memory[i] + static_cast<float>(restless_numbers[step]) * draw0[i] +
              0.25f * draw3[i];
      memory[i] -= before;
    }
  }
  return z;
}

std::vector<std::byte> constant_image(const std::vector<float>& pixels, std::int64_t height,
                                      std::int64_t width) {
  const Device device = cpu({.threads = 1});
  const Shape image{height, width, 1};
  StoredSampler stored;
  stored.sample_shape = image;
  stored.evaluations = 1;
  std::vector<std::byte> storage;
  add_weight(stored, storage, "pixels", Tensor::from(pixels, image, device));
  stored.forms.push_back(
      {batched_graph({{"pixels", [&](auto) { return TensorType(image, DType::f32); }},
                      {"z",
                       [&](std::int64_t batch) {
                         return TensorType(with_leading_axis(batch, image), DType::f32);
                       }}},
                     {{"z", "primal"}},
                     [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
                       // 0 / 0 for 1e30.
                       const Tensor none = 0.0 * x[1], bad = lt(x[0], 1e29);
                       return {none + where(bad, x[0], none / none)};
                     }),
       {}});
  stored.steps.push_back({0, {}});
  return finished(stored, storage);
}

}  // namespace fluxion::testing
