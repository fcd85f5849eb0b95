// Exported models in the runtime library.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <random>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/samplers/export_sampler.h"
#include "models/samplers/sampler.h"
#include "tests/embed/handles.h"
#include "tests/embed/tiny_samplers.h"
#include "tests/files/mutate.h"
#include "tests/files/seal.h"
#include "tests/models/export_models.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("the runtime draws from an exported model what its sampler draws, bit for bit",
          "[embed][export]") {
  const Device device = cpu({.threads = 1});
  const DeviceHandle runtime_device = open_device_handle("cpu:1");
  for (const NetworkConfig& network : {export_mlp, export_dit}) {
    const Model model = exported_model(network, device);
    const bool classes = num_classes(network) > 0;
    std::vector<SamplerOptions> all{{.kind = SamplerKind::meanflow, .steps = 1}};
    for (const SamplerKind kind : {SamplerKind::ode_heun, SamplerKind::edm, SamplerKind::dpm_solver,
                                   SamplerKind::sde, SamplerKind::predictor_corrector})
      all.push_back({.kind = kind, .steps = 3, .prediction = Prediction::velocity});
    for (const Path& path : {Path::linear(), Path::edm()})
      all.push_back({.kind = SamplerKind::rectified,
                     .steps = 3,
                     .path = path,
                     .prediction = Prediction::velocity});
    if (classes)
      all.push_back({.kind = SamplerKind::ddim,
                     .steps = 3,
                     .guidance = 1.5,
                     .prediction = Prediction::velocity,
                     .eta = 1});
    for (const SamplerOptions& options : all) {
      INFO(family(network) << " " << to_string(options.kind));
      const Sampler sampler(network, model.parameters, options);
      const GeneratorHandle generator =
          open_bytes(runtime_device.get(), serialise(export_sampler(model, options)));
      // Three batches, the last of them filled up, from a block of noise into the next.
      std::vector<std::int32_t> labels, given;
      for (std::int32_t i = 0; classes && i < 70; ++i) {
        labels.push_back(i % 4);
        given.push_back(i % 4 == 3 ? FLUXION_OPEN_CLASS : i % 4);
      }
      fluxion_request request = request_for(8, 0, 70, 32);
      if (classes) request.classes = given.data();
      CHECK(drawn(generator.get(), request) == sampler.sample(70, 32, 8, labels));
    }
  }
}

TEST_CASE(
    "a request sets the guidance of a generator that leaves it free, bit for bit as the sampler "
    "with that scale",
    "[embed][export]") {
  const Device device = cpu({.threads = 1});
  const DeviceHandle runtime_device = open_device_handle("cpu:1");
  const Model model = exported_model(export_dit, device);
  std::vector<std::int32_t> labels;
  for (std::int32_t i = 0; i < 9; ++i) labels.push_back(i % 4);
  fluxion_request request = request_for(5, 0, 9, 4);
  std::vector<std::int32_t> given;
  for (const std::int32_t label : labels) given.push_back(label == 3 ? FLUXION_OPEN_CLASS : label);
  request.classes = given.data();
  for (SamplerOptions options : {SamplerOptions{.kind = SamplerKind::ode_heun, .steps = 3},
                                 SamplerOptions{.kind = SamplerKind::dpm_solver, .steps = 3},
                                 SamplerOptions{.kind = SamplerKind::edm, .steps = 2},
                                 SamplerOptions{.kind = SamplerKind::ddim, .steps = 2, .eta = 1}}) {
    options.prediction = Prediction::velocity;
    options.guidance = 1.5;
    options.guidance_high = 0.9;
    INFO(to_string(options.kind));
    const StoredSampler stored = export_sampler(model, options, WeightEncoding::f32, true);
    CHECK(stored.guidance == 1.5);
    const GeneratorHandle generator = open_bytes(runtime_device.get(), serialise(stored));
    fluxion_info info = FLUXION_INFO;
    fluxion_error error;
    REQUIRE(fluxion_generator_info(generator.get(), &info, &error) == FLUXION_OK);
    CHECK(info.free_guidance == 1);
    CHECK(info.guidance == 1.5);
    const auto sampled = [&] {
      return Sampler(export_dit, model.parameters, options).sample(9, 4, 5, labels);
    };
    request.set_guidance = 0;
    const std::vector<float> usual = drawn(generator.get(), request);
    CHECK(usual == sampled());
    request.set_guidance = 1;
    for (const double scale : {3.0, -0.5, 0.0}) {
      request.guidance = options.guidance = scale;
      CHECK(drawn(generator.get(), request) == sampled());
      CHECK(drawn(generator.get(), request) != usual);
    }
    request.guidance = 1.5;
    CHECK(drawn(generator.get(), request) == usual);
  }
}

TEST_CASE("guidance that can't be chosen is refused, and callers of before there was one go on",
          "[embed][errors]") {
  const Device device = cpu({.threads = 1});
  const DeviceHandle runtime_device = open_device_handle("cpu:1");
  const Model model = exported_model(export_dit, device);
  const SamplerOptions options{
      .kind = SamplerKind::ode_heun, .steps = 2, .prediction = Prediction::velocity};
  const GeneratorHandle fixed =
      open_bytes(runtime_device.get(), serialise(export_sampler(model, options)));
  const StoredSampler stored = export_sampler(model, options, WeightEncoding::f32, true);
  const GeneratorHandle free = open_bytes(runtime_device.get(), serialise(stored));
  fluxion_request request = request_for(5, 0, 2, 2);
  std::vector<float> samples(2 * static_cast<std::size_t>(stored.sample_shape.elements()));
  fluxion_error error;
  const auto draw = [&](const GeneratorHandle& from) {
    return fluxion_generate(from.get(), &request, samples.data(), samples.size(), &error);
  };
  request.set_guidance = 1;
  check_failed(draw(fixed), error, FLUXION_INVALID_ARGUMENT, "--free-guidance");
  request.guidance = std::numeric_limits<double>::infinity();
  check_failed(draw(free), error, FLUXION_INVALID_ARGUMENT, "guidance");
  request.set_guidance = 2;
  check_failed(draw(free), error, FLUXION_INVALID_ARGUMENT, "set_guidance is 2");

  // A program that was compiled with the structures of before.
  request.struct_size = offsetof(fluxion_request, set_guidance);
  CHECK(draw(free) == FLUXION_OK);
  fluxion_info info = FLUXION_INFO;
  info.struct_size = offsetof(fluxion_info, free_guidance);
  info.free_guidance = 77;
  CHECK(fluxion_generator_info(free.get(), &info, &error) == FLUXION_OK);
  CHECK(info.steps == 2);
  CHECK(info.free_guidance == 77);
  info.struct_size -= 8;
  check_failed(fluxion_generator_info(free.get(), &info, &error), error, FLUXION_INVALID_ARGUMENT,
               "struct_size");

  // A file that says one thing and does another.
  StoredSampler other = stored;
  other.guidance = 2;
  CHECK_THROWS_AS(check(other), Error);
  other.guidance = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(check(other), Error);
  other = stored;
  other.open_class = false;
  CHECK_THROWS_AS(check(other), Error);
  // A model whose guidance is trained in, and one without classes.
  Model guided = model;
  guided.info.guidance.emplace();
  CHECK_THROWS_AS(export_sampler(guided, options, WeightEncoding::f32, true), Error);
  CHECK_THROWS_AS(
      export_sampler(exported_model(export_mlp, device), options, WeightEncoding::f32, true),
      Error);
}

TEST_CASE("weights lie in the data apart from each other, or would multiply a file's size",
          "[embed][errors]") {
  std::vector<std::byte> bytes = tiny_generator(1).bytes;
  const StoredSampler sampler = parse_sampler(bytes, nullptr);
  const auto offset = [&](std::size_t weight) {
    return static_cast<std::uint64_t>(sampler.weights[weight].bytes.data() - bytes.data());
  };
  // Where the file says that its second weight begins.
  const std::uint64_t second = offset(1), first = offset(0);
  std::byte wanted[8];
  std::memcpy(wanted, &second, 8);
  const auto place = std::search(bytes.begin(), bytes.end(), std::begin(wanted), std::end(wanted));
  REQUIRE(place != bytes.end());
  const DeviceHandle device = open_device_handle("cpu:1");
  const auto refused = [&](std::uint64_t at, const char* words) {
    std::memcpy(&*place, &at, 8);
    seal(bytes);
    fluxion_generator* generator = nullptr;
    fluxion_error error;
    check_failed(
        fluxion_generator_open_memory(device.get(), bytes.data(), bytes.size(), &generator, &error),
        error, FLUXION_BAD_FILE, words);
    CHECK(generator == nullptr);
  };
  refused(first, "'rows' begins before");
  for (const std::uint64_t outside :
       {std::uint64_t{0}, std::uint64_t{64}, second + 4, second + (1 << 20), ~std::uint64_t{63}})
    refused(outside, "'rows' does not lie within");
}

TEST_CASE("hostile files with a right checksum are refused, or run within their budget",
          "[embed][errors]") {
  constexpr std::uint64_t budget = 64 << 20;
  const DeviceHandle device = open_device_handle("cpu:1", budget);
  const Model model = exported_model(export_mlp, cpu({.threads = 1}));
  const std::vector<std::byte> files[] = {
      tiny_generator(2).bytes, restless_sampler(),
      serialise(export_sampler(
          model, {.kind = SamplerKind::ode_heun, .steps = 2, .prediction = Prediction::velocity}))};
  std::mt19937 random(3);
  int opened = 0, drew = 0;
  std::vector<float> samples(4096);
  for (int round = 0; round < 1500; ++round) {
    std::vector<std::byte> bytes = mutate(files[round % std::size(files)], random);
    seal(bytes);
    CAPTURE(round);
    fluxion_generator* made = nullptr;
    fluxion_error error;
    const fluxion_status status =
        fluxion_generator_open_memory(device.get(), bytes.data(), bytes.size(), &made, &error);
    INFO(error.message);
    const GeneratorHandle generator(made);
    REQUIRE((status == FLUXION_OK) == (made != nullptr));
    if (!made) {
      REQUIRE((status == FLUXION_BAD_FILE || status == FLUXION_OUT_OF_MEMORY));
      continue;
    }
    ++opened;
    const fluxion_request request = request_for(1, 62, 3, 2);
    if (fluxion_generate(made, &request, samples.data(), samples.size(), &error) == FLUXION_OK)
      ++drew;
    REQUIRE(memory_of(device.get()).peak <= budget);
  }
  INFO(opened << " of 1500 opened, " << drew << " drew");
  CHECK(opened > 20);
  CHECK(drew > 0);
  CHECK(memory_of(device.get()).in_use == 0);
}
