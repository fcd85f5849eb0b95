// Exported models in the runtime library.
#include <algorithm>
#include <cstring>
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

TEST_CASE("weights that share their bytes are refused, for they would multiply a file's size",
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
  std::memcpy(&*place, &first, 8);
  seal(bytes);
  const DeviceHandle device = open_device_handle("cpu:1");
  fluxion_generator* generator = nullptr;
  fluxion_error error;
  check_failed(
      fluxion_generator_open_memory(device.get(), bytes.data(), bytes.size(), &generator, &error),
      error, FLUXION_BAD_FILE, "'rows' begins before");
  CHECK(generator == nullptr);
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
