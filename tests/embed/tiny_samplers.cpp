#include "tests/embed/tiny_samplers.h"

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"

namespace fluxion::testing {

namespace {

Tensor numbers_like(const Shape& shape, double start, const Device& device) {
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(start + 0.37 * static_cast<double>(i * 7919 % 23) / 23 - 0.18);
  return Tensor::from(values, shape, device);
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

}  // namespace fluxion::testing
