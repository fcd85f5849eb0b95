#include "tests/embed/stored_samplers.h"

#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/export/sample_noise.h"
#include "engine/graph/ops.h"

namespace fluxion::testing {

TensorType scalar(std::int64_t) { return {{}, DType::f32}; }

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
                const Tensor& value, WeightEncoding encoding) {
  const std::vector<std::byte> bytes = encoded(value.to_host<float>(), encoding);
  storage.insert(storage.end(), bytes.begin(), bytes.end());
  sampler.weights.push_back({name, value.shape(), encoding, {}});
}

std::vector<std::byte> finished(StoredSampler sampler, const std::vector<std::byte>& storage) {
  std::size_t at = 0;
  for (StoredWeight& weight : sampler.weights) {
    const std::size_t bytes =
        encoded_bytes(static_cast<std::uint64_t>(weight.shape.elements()), weight.encoding);
    weight.bytes = std::span(storage).subspan(at, bytes);
    at += bytes;
  }
  return serialise(sampler);
}

namespace {
constexpr std::uint32_t restless_draws[] = {0, 3};
constexpr double restless_numbers[] = {0.75, -0.5};
}  // namespace

std::vector<std::byte> restless_sampler(std::int64_t width) {
  const auto rows = [=](std::int64_t batch) { return TensorType({batch, width}, DType::f32); };
  StoredSampler stored;
  stored.sample_shape = {width};
  stored.scale = 2.5;
  stored.evaluations = 2;
  stored.start.push_back({batched_graph({{"z", rows}}, {{"m", "primal"}},
                                        [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
                                          return {2.0 * x[0]};
                                        }),
                          {}});
  stored.forms.push_back(
      {batched_graph(
           {{"z", rows}, {"m", rows}, {"number", scalar}, {"draw 0", rows}, {"draw 3", rows}},
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

std::vector<std::byte> wide_image() {
  StoredSampler stored;
  stored.sample_shape = {4, 4, 1};
  stored.evaluations = 1;
  stored.forms.push_back({batched_graph({{"z",
                                          [](std::int64_t batch) {
                                            return TensorType({batch, 4, 4, 1}, DType::f32);
                                          }}},
                                        {{"z", "primal"}},
                                        [](const std::vector<Tensor>& x) -> std::vector<Tensor> {
                                          return {
                                              convert(0.5 * convert(x[0], DType::f64), DType::f32)};
                                        }),
                          {}});
  stored.steps.push_back({0, {}});
  return finished(stored, {});
}

std::vector<std::byte> guided_sampler() {
  constexpr std::int64_t classes = 2, width = 40;
  const Device device = cpu({.threads = 1});
  const auto rows_of = [](std::int64_t batch) { return TensorType({batch, width}, DType::f32); };
  const auto labels_of = [](std::int64_t batch) { return TensorType({batch}, DType::i32); };
  std::vector<float> values(static_cast<std::size_t>((classes + 1) * width));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.01f * static_cast<float>(i) - 0.5f;
  const Tensor rows = Tensor::from(values, {classes + 1, width}, device);
  const auto type_of_rows = [&](auto) { return rows.type(); };

  StoredSampler stored;
  stored.name = "guided";
  stored.origin = "by hand";
  stored.sample_shape = {width};
  stored.classes = classes;
  stored.class_names = {"left", "right"};
  stored.usual_classes = {1, 0};
  stored.open_class = true;
  stored.evaluations = 3;
  stored.guidance = 1.5;
  std::vector<std::byte> storage;
  add_weight(stored, storage, "coarse", rows, WeightEncoding::int8);
  add_weight(stored, storage, "fine", rows, WeightEncoding::f16);
  const auto towards = [](const Tensor& table, const Tensor& z, const Tensor& labels) {
    return take(table, labels, 0) - z;
  };
  const auto open = [](const Tensor& labels) {
    return full(labels.shape(), classes, DType::i32, labels.device());
  };
  stored.start.push_back({batched_graph({{"coarse", type_of_rows},
                                         {"fine", type_of_rows},
                                         {"z", rows_of},
                                         {"labels", labels_of}},
                                        {{"m", "primal"}},
                                        [&](const std::vector<Tensor>& x) -> std::vector<Tensor> {
                                          return {towards(x[1], x[2], x[3])};
                                        }),
                          {}});
  // One form draws noise, the other does not; both guide with their last number.
  for (const bool draws : {true, false}) {
    std::vector<Argument> arguments{{"coarse", type_of_rows}, {"fine", type_of_rows},
                                    {"z", rows_of},           {"m", rows_of},
                                    {"rate", scalar},         {"guidance", scalar}};
    if (draws) arguments.push_back({"draw 2", rows_of});
    arguments.push_back({"labels", labels_of});
    stored.forms.push_back({batched_graph(arguments, {{"z", "primal"}, {"m", "primal"}},
                                          [&](const std::vector<Tensor>& x) -> std::vector<Tensor> {
                                            const Tensor &z = x[2], &labels = x.back();
                                            const Tensor without = towards(x[0], z, open(labels)),
                                                         with = towards(x[0], z, labels),
                                                         guided = without + x[5] * (with - without);
                                            const Tensor next = z + x[4] * (guided + 0.5 * x[3]);
                                            return {draws ? next + x[4] * x[6] : next, guided};
                                          }),
                            draws ? std::vector<std::uint32_t>{2} : std::vector<std::uint32_t>{}});
  }
  for (const auto& [form, rate] : {std::pair{0, 0.5}, {0, 0.25}, {1, 0.125}})
    stored.steps.push_back({form, {rate, *stored.guidance}});
  return finished(stored, storage);
}

namespace {

// The graph for one sample; `growths` are its integers by hand.
StoredForm by_hand(const std::vector<TensorType>& arguments, std::size_t results,
                   std::vector<Growth> growths,
                   const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& function) {
  const Device device = cpu({.threads = 1});
  std::vector<Tensor> examples;
  for (const TensorType& type : arguments)
    examples.push_back(zeros(type.shape, type.dtype, device));
  const TracedParameters parameters(examples);
  const std::vector<StoredValue> in(arguments.size(), {"x", "primal"}),
      out(results, {"y", "primal"});
  return {{store("step", in, out, parameters.tensors(), function(parameters.tensors())),
           std::move(growths)},
          {}};
}

}  // namespace

std::vector<std::byte> uneven_sampler(Uneven kind) {
  const TensorType z({1, 3}, DType::f32);
  // z's rows, and where the slice stops: 2 sizes of z, the parameter's number, the pad's low and
  // high, the slice's start, then its stop.
  const std::vector<Growth> growths{{0, 1}, {9, 1}};
  const auto every_second = [](const Tensor& x) {
    return slice(pad(x, {0, 0}, {1, 0}), {0, 0}, {2, 3}, {2, 1});
  };
  StoredSampler stored;
  stored.sample_shape = {3};
  stored.evaluations = 1;
  if (kind == Uneven::memory) {
    stored.start.push_back(by_hand({z}, 1, growths, [&](const std::vector<Tensor>& x) {
      return std::vector<Tensor>{every_second(x[0])};
    }));
    stored.forms.push_back(by_hand({z, z}, 2, {{0, 1}, {2, 1}}, [](const std::vector<Tensor>& x) {
      return std::vector<Tensor>{-x[0], -x[1]};
    }));
  } else {
    stored.forms.push_back(by_hand({z}, 1, growths, [&](const std::vector<Tensor>& x) {
      const Tensor rows = every_second(x[0]);
      return std::vector<Tensor>{kind == Uneven::graph ? x[0] + rows : rows};
    }));
  }
  stored.steps.push_back({0, {}});
  return finished(stored, {});
}

std::vector<std::byte> long_sampler(std::size_t weights, std::size_t steps) {
  const TensorType z({1, 3}, DType::f32), one({1}, DType::f32);
  const Device device = cpu({.threads = 1});
  StoredSampler stored;
  stored.sample_shape = {3};
  std::vector<std::byte> storage;
  const Tensor zero = zeros({1}, DType::f32, device);
  for (std::size_t i = 0; i < weights; ++i) add_weight(stored, storage, "w", zero);
  std::vector<TensorType> arguments(weights, one);
  arguments.push_back(z);
  stored.forms.push_back(
      by_hand(arguments, 1, {{static_cast<std::uint32_t>(weights), 1}},
              [](const std::vector<Tensor>& x) { return std::vector<Tensor>{-x.back()}; }));
  stored.steps.assign(steps, {0, {}});
  return finished(stored, storage);
}

}  // namespace fluxion::testing
