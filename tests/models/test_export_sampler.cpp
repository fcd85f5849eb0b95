// Samplers in files (engine/export/stored_sampler.h): equal bits for every kind, sizes of batch,
// encodings of weights, and what is refused.
#include <bit>
#include <cmath>
#include <random>

#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/export/sample_noise.h"
#include "engine/graph/ops.h"
#include "models/files/npy.h"
#include "models/samplers/export_sampler.h"
#include "models/samplers/sampler.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/mutate.h"
#include "tests/files/scratch.h"
#include "tests/files/seal.h"
#include "tests/models/export_models.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Bytes = std::vector<std::byte>;

// What a file says, step by step, in the plainest way.
std::vector<float> run_stored(const StoredSampler& sampler, std::int64_t count, std::uint64_t seed,
                              const std::vector<std::int32_t>& labels, const Device& device) {
  const auto number = [&](double value) {
    return Tensor::from(std::vector<float>{static_cast<float>(value)}, {}, device);
  };
  const auto elements = static_cast<std::size_t>(sampler.sample_shape.elements());
  const Shape shape = with_leading_axis(count, sampler.sample_shape);
  SampleNoise noise(sampler.sample_shape, DType::f32, device);
  const auto draw = [&](const Tensor& key) {
    std::vector<float> values(static_cast<std::size_t>(count) * elements);
    noise.draw(key, 0, count, values);
    return Tensor::from(values, shape, device);
  };
  const auto run = [&](const StoredForm& form, const std::vector<Tensor>& arguments) {
    const StoredGraph graph = at_batch(form.graph, count);
    const auto compiled = compile(std::function(
        [&](const std::vector<Tensor>& given) { return call(graph, given, device); }));
    return compiled(arguments);
  };
  std::vector<Tensor> weights;
  for (const StoredWeight& weight : sampler.weights)
    weights.push_back(Tensor::from(weight.values(), weight.shape, device));
  const NoiseKeys keys = noise_keys(seed, device);
  Tensor z = draw(keys.of_start);
  if (sampler.scale != 1) z = sampler.scale * z;
  const auto arguments_of = [&] {
    std::vector<Tensor> arguments = weights;
    arguments.push_back(z);
    return arguments;
  };
  const auto add_labels = [&](std::vector<Tensor>& arguments) {
    if (sampler.classes == 0) return;
    std::vector<std::int32_t> all = labels;
    all.resize(static_cast<std::size_t>(count), static_cast<std::int32_t>(sampler.classes));
    arguments.push_back(Tensor::from(all, {count}, device));
  };
  std::vector<Tensor> memory;
  if (!sampler.start.empty()) {
    std::vector<Tensor> arguments = arguments_of();
    add_labels(arguments);
    memory = run(sampler.start.front(), arguments);
  }
  for (std::size_t i = 0; i < sampler.steps.size(); ++i) {
    const StoredStep& step = sampler.steps[i];
    const StoredForm& form = sampler.forms[static_cast<std::size_t>(step.form)];
    std::vector<Tensor> arguments = arguments_of();
    arguments.insert(arguments.end(), memory.begin(), memory.end());
    for (const double value : step.numbers) arguments.push_back(number(value));
    for (const std::uint32_t drawn : form.draws)
      arguments.push_back(
          draw(fold_in(fold_in(keys.of_steps, static_cast<std::uint32_t>(i)), drawn)));
    add_labels(arguments);
    std::vector<Tensor> results = run(form, arguments);
    z = results.front();
    memory.assign(results.begin() + 1, results.end());
  }
  return z.to_host<float>();
}

Bytes file_of(const Model& model, const SamplerOptions& options,
              WeightEncoding encoding = WeightEncoding::f32) {
  return serialise(export_sampler(model, options, encoding));
}

StoredSampler read_file(const Bytes& file) {
  const auto owner = std::make_shared<const Bytes>(file);
  return parse_sampler(*owner, owner);
}

}  // namespace

TEST_CASE("an exported sampler draws what the sampler draws, bit for bit", "[export]") {
  const Device device = cpu({.threads = 1});
  for (const NetworkConfig& network : {export_mlp, export_dit, export_unet}) {
    const Model model = exported_model(network, device);
    const bool classes = num_classes(network) > 0;
    std::vector<SamplerOptions> all{{.kind = SamplerKind::meanflow, .steps = 1},
                                    {.kind = SamplerKind::meanflow, .steps = 3}};
    for (const SamplerKind kind :
         {SamplerKind::ode_euler, SamplerKind::ode_heun, SamplerKind::ode_midpoint,
          SamplerKind::ode_rk4, SamplerKind::edm, SamplerKind::ddim, SamplerKind::dpm_solver,
          SamplerKind::sde, SamplerKind::predictor_corrector})
      for (const std::int64_t steps : {1, 3})
        all.push_back({.kind = kind, .steps = steps, .prediction = Prediction::velocity});
    if (classes) {
      all.push_back({.kind = SamplerKind::ode_heun,
                     .steps = 2,
                     .guidance = 2,
                     .prediction = Prediction::velocity});
      all.push_back({.kind = SamplerKind::ddim,
                     .steps = 3,
                     .guidance = 1.5,
                     .guidance_low = 0.3,
                     .guidance_high = 0.8,
                     .prediction = Prediction::velocity,
                     .eta = 1});
    }
    for (const SamplerOptions& options : all) {
      INFO(family(network) << " " << to_string(options.kind) << " " << options.steps << " "
                           << options.guidance);
      const StoredSampler stored = read_file(file_of(model, options));
      const Sampler sampler(network, model.parameters, options);
      for (const std::int64_t count : {1, 3, 70}) {
        if (count == 70 && family(network) != "mlp") continue;
        std::vector<std::int32_t> labels;
        for (std::int64_t i = 0; classes && i < count; ++i)
          labels.push_back(static_cast<std::int32_t>(i % 4));
        const std::vector<float> expected = sampler.sample(count, count, 5, labels);
        CHECK(run_stored(stored, count, 5, labels, device) == expected);
      }
      CHECK(stored.evaluations == sampler.evaluations());
      // The runtime library alone has no kernels for f64.
      for (const auto* forms : {&stored.forms, &stored.start})
        for (const StoredForm& form : *forms)
          for (const plan::GraphNode& node : at_batch(form.graph, 2).graph.nodes)
            for (const TensorType& output : node.outputs) CHECK(output.dtype != DType::f64);
    }
  }
}

TEST_CASE("a sampler file keeps names, classes and weights", "[export]") {
  const Device device = cpu({.threads = 1});
  Model model = exported_model(export_dit, device);
  model.info.class_names = {"zero", "one", "two"};
  model.info.untrained_classes = {1};
  const ScratchFolder scratch;
  const auto path = scratch / "m.fxn";
  StoredSampler exported = export_sampler(model, {});
  exported.origin = "\xff";
  CHECK(contains(message_of<Error>([&] { serialise(exported); }), "UTF-8"));
  exported.origin = "of a test, \u00e9";
  save_sampler(path, exported);
  const StoredSampler sampler = load_sampler(path);
  CHECK(sampler.origin == "of a test, \u00e9");
  CHECK(read_file(file_of(model, {})).origin.empty());
  CHECK(sampler.name == "test");
  CHECK(sampler.sample_shape == Shape{8, 8, 1});
  CHECK(sampler.classes == 3);
  CHECK(sampler.class_names == model.info.class_names);
  CHECK(sampler.usual_classes == std::vector<std::int32_t>{0, 2});
  CHECK(sampler.open_class);
  CHECK(sampler.evaluations == 1);
  REQUIRE(sampler.weights.size() == model.parameters.size());
  std::size_t at = 0;
  for (const auto& [key, value] : model.parameters) {
    const StoredWeight& weight = sampler.weights[at++];
    CHECK(weight.name == key);
    CHECK(reinterpret_cast<std::uintptr_t>(weight.bytes.data()) % 64 == 0);
    CHECK(weight.values() == value.to_host<float>());
  }
}

TEST_CASE("weights in fewer bits are as near as their encoding allows", "[export]") {
  const Device device = cpu({.threads = 1});
  const Model model = exported_model(export_dit, device);
  const std::size_t whole = file_of(model, {}).size();
  for (const auto& [encoding, relative, smaller] : {std::tuple(WeightEncoding::f16, 0x1p-11, 2.0),
                                                    std::tuple(WeightEncoding::bf16, 0x1p-8, 2.0),
                                                    std::tuple(WeightEncoding::int8, 0.0, 3.7)}) {
    INFO(to_string(encoding));
    const StoredSampler sampler = read_file(file_of(model, {}, encoding));
    double bytes = 0, elements = 0;
    std::size_t at = 0;
    for (const auto& [key, value] : model.parameters) {
      const StoredWeight& weight = sampler.weights[at++];
      const std::vector<float> expected = value.to_host<float>(), got = weight.values();
      REQUIRE(got.size() == expected.size());
      bytes += static_cast<double>(weight.bytes.size());
      elements += static_cast<double>(got.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        double bound = relative * std::abs(expected[i]) + 0x1p-25;  // f16: half the least step
        if (encoding == WeightEncoding::int8) {
          double largest = 0;
          for (std::size_t j = i / 32 * 32; j < std::min(got.size(), i / 32 * 32 + 32); ++j)
            largest = std::max(largest, std::abs(static_cast<double>(expected[j])));
          // Half a step, and what rounding the scale to f16 adds at the block's largest element.
          bound = largest / 127 * 0.5 + largest * 0x1p-11 + 1e-7;
        }
        if (std::abs(got[i] - expected[i]) > bound + 1e-9)
          FAIL(key << "[" << i << "]: " << got[i] << " for " << expected[i]);
      }
    }
    CHECK(4 * elements / bytes > 0.95 * smaller);
    CHECK(file_of(model, {}, encoding).size() < whole);
    const std::vector<float> samples = run_stored(sampler, 2, 1, {0, 1}, device);
    for (const float value : samples) CHECK(std::isfinite(value));
  }
  CHECK_THROWS_AS(encoded(std::vector<float>{1, NAN}, WeightEncoding::f32), Error);
  CHECK_THROWS_AS(encoded(std::vector<float>{70000}, WeightEncoding::f16), Error);
  CHECK_THROWS_AS(encoded(std::vector<float>{1e30f}, WeightEncoding::int8), Error);
  CHECK(encoded({}, WeightEncoding::int8).empty());
  StoredWeight weight{"w", {33}, WeightEncoding::int8, {}};
  const Bytes bytes = encoded(std::vector<float>(33, -2), WeightEncoding::int8);
  weight.bytes = bytes;
  for (const float value : weight.values()) CHECK(std::abs(value + 2) < 2e-3);
}

TEST_CASE("every half in a file is the number that it is elsewhere", "[export]") {
  for (const WeightEncoding encoding : {WeightEncoding::f16, WeightEncoding::bf16}) {
    Bytes bytes(2 << 16);
    for (std::uint32_t bits = 0; bits < 1 << 16; ++bits) {
      bytes[2 * bits] = static_cast<std::byte>(bits);
      bytes[2 * bits + 1] = static_cast<std::byte>(bits >> 8);
    }
    const std::vector<float> values = StoredWeight{"all", {1 << 16}, encoding, bytes}.values();
    for (std::uint32_t bits = 0; bits < 1 << 16; ++bits) {
      const auto half = static_cast<std::uint16_t>(bits);
      const float expected =
          encoding == WeightEncoding::f16 ? to_f32(Float16{half}) : to_f32(BFloat16{half});
      if (std::isnan(expected) ? !std::isnan(values[bits])
                               : std::bit_cast<std::uint32_t>(values[bits]) !=
                                     std::bit_cast<std::uint32_t>(expected))
        FAIL(to_string(encoding) << " " << bits << ": " << values[bits] << " for " << expected);
    }
  }
  std::vector<float> few(2);
  CHECK_THROWS_AS((StoredWeight{"w", {3}, WeightEncoding::f32, {}}.copy_to(few)), Error);
  CHECK_NOTHROW(StoredWeight{"w", {0}, WeightEncoding::f32, {}}.copy_to({}));
}

TEST_CASE("what a fixed list of steps can't do is not exported", "[export]") {
  const Device device = cpu({.threads = 1});
  Model model = exported_model(export_mlp, device);
  CHECK(contains(message_of<Error>([&] {
                   export_sampler(model, {.kind = SamplerKind::ode_dopri5,
                                          .steps = 10,
                                          .prediction = Prediction::velocity});
                 }),
                 "dopri5 chooses its steps"));
  CHECK(contains(message_of<Error>([&] {
                   export_sampler(model, {.kind = SamplerKind::predictor_corrector,
                                          .steps = 10,
                                          .prediction = Prediction::velocity,
                                          .measured_norms = true});
                 }),
                 "batch"));
  model.parameters.begin()->second = model.parameters.begin()->second * 1e30;
  CHECK(contains(message_of<Error>([&] { export_sampler(model, {}, WeightEncoding::f16); }),
                 model.parameters.begin()->first));
}

TEST_CASE("a function whose sizes do not grow evenly is stored for no batch", "[export]") {
  const Device device = cpu({.threads = 1});
  const auto stored = [&](const std::function<Tensor(const Tensor&)>& f) {
    return batched([&](std::int64_t batch) {
      const TracedParameters traced({full({batch, 2}, 0, DType::f32, device)});
      return store("f", {{"x"}}, {{"y"}}, traced.tensors(),
                   std::vector<Tensor>{f(traced.tensors()[0])});
    });
  };
  CHECK_NOTHROW(stored([](const Tensor& x) { return x + x; }));
  CHECK_NOTHROW(stored([](const Tensor& x) { return sum(x, {0}); }));
  CHECK_NOTHROW(stored([](const Tensor& x) { return concat({x, x}, 0); }));
  // The mean divides by the batch, which is a number of the graph, not a size.
  CHECK_THROWS_AS(stored([](const Tensor& x) { return mean(x, {0}); }), Error);
  CHECK_THROWS_AS(stored([](const Tensor& x) {
                    return reshape(broadcast_to(sum(x), {x.size(0), x.size(0)}), {-1});
                  }),
                  Error);
  const BatchedGraph grows = stored([](const Tensor& x) { return concat({x, x}, 0); });
  CHECK(at_batch(grows, 5).graph.inputs.front().shape == Shape{5, 2});
  CHECK_THROWS_AS(at_batch(grows, 0), Error);
  CHECK_THROWS_AS(at_batch(grows, std::int64_t{1} << 48), Error);
}

TEST_CASE("damaged sampler files are refused", "[export]") {
  const Device device = cpu({.threads = 1});
  StoredSampler whole = export_sampler(
      exported_model(export_mlp, device),
      {.kind = SamplerKind::ode_heun, .steps = 2, .prediction = Prediction::velocity});
  whole.origin = "of a test";
  const Bytes file = serialise(whole);
  for (std::size_t bytes = 0; bytes < file.size(); bytes += 97)
    CHECK_THROWS_AS(
        read_file(Bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(bytes))),
        FormatError);
  Bytes other = file;
  other[8] = std::byte{9};
  CHECK(contains(message_of<FormatError>([&] { read_file(other); }), "version 9"));
  std::mt19937 random(1);
  int accepted = 0;
  for (int round = 0; round < 3'000; ++round) {
    Bytes damaged = mutate(file, random);
    if (damaged != file) CHECK_THROWS_AS(read_file(damaged), FormatError);
    seal(damaged);
    try {
      const StoredSampler sampler = read_file(damaged);
      check(sampler);
      ++accepted;
    } catch (const FormatError&) {
    }
  }
  INFO(accepted << " of 3000 were whole");
  CHECK(accepted > 0);
  CHECK(accepted < 2'500);
}

TEST_CASE("sampler files of this version stay readable", "[export]") {
  // Written by version 1 from tests/methods/golden/flow-matching.safetensors, with samples 0 to 3
  // of seed 7: one has a start, a scale and memory, the other draws noise on its way.
  const Device device = cpu({.threads = 1});
  for (const std::string name : {"dpm-solver-1", "sde-1"}) {
    INFO(name);
    const std::string path = FLUXION_SOURCE_DIR "/tests/models/golden/" + name;
    const std::vector<float> expected = read_npy(path + ".npy").values<float>(),
                             got = run_stored(load_sampler(path + ".fxn"), 4, 7, {}, device);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(expected[i]).margin(1e-5));
  }
}
