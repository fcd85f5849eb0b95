// The runtime library on the software Vulkan device that test machines have.
#include <cmath>
#include <string>

#include "tests/embed/handles.h"
#include "tests/embed/tiny_samplers.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// The name of the first software device, or nothing.
std::string software_name() {
  std::string name;
  fluxion_error error;
  check_done(fluxion_list_devices(
                 [](void* data, const fluxion_device_info* info) {
                   auto& to = *static_cast<std::string*>(data);
                   if (to.empty() && std::string(info->kind) == "software") to = info->name;
                 },
                 &name, &error),
             error);
  return name;
}

}  // namespace

TEST_CASE("Vulkan draws what the processor draws, but for rounding", "[embed][vulkan]") {
  const std::string name = software_name();
  if (name.empty()) return;
  const DeviceHandle device = open_device_handle(name.c_str()), cpu = open_device_handle("cpu:1");
  for (const std::vector<std::byte>& bytes : {tiny_generator(3).bytes, restless_sampler()}) {
    const GeneratorHandle generator = open_bytes(device.get(), bytes),
                          expected = open_bytes(cpu.get(), bytes);
    const fluxion_request request = request_for(6, 61, 7, 4);
    const std::vector<float> samples = drawn(generator.get(), request),
                             wanted = drawn(expected.get(), request);
    for (std::size_t i = 0; i < samples.size(); ++i)
      CHECK(samples[i] == Approx(wanted[i]).margin(2e-5));
    CHECK(drawn(generator.get(), request) == samples);

    fluxion_request stopped = request;
    stopped.progress = [](void*, std::int64_t done, std::int64_t) { return done == 2 ? 1 : 0; };
    std::vector<float> rest(samples.size());
    fluxion_error error;
    check_failed(fluxion_generate(generator.get(), &stopped, rest.data(), rest.size(), &error),
                 error, FLUXION_CANCELLED, "step 2");
    CHECK(drawn(generator.get(), request) == samples);
  }
  CHECK(memory_of(device.get()).in_use == 0);
  CHECK(memory_of(device.get()).peak > 0);
}

TEST_CASE("Vulkan holds the memory budget", "[embed][vulkan][memory]") {
  const std::string name = software_name();
  if (name.empty()) return;
  constexpr std::uint64_t budget = 12 << 20;
  const std::vector<std::byte> bytes = tiny_generator(2, {24, 24, 1}).bytes;
  const DeviceHandle device = open_device_handle(name.c_str(), budget);
  const GeneratorHandle generator = open_bytes(device.get(), bytes);
  const std::vector<float> small = drawn(generator.get(), request_for(1, 0, 4, 4));
  const fluxion_request large = request_for(1, 0, 4096, 4096);
  std::vector<float> samples(4096 * 576);
  fluxion_error error;
  check_failed(fluxion_generate(generator.get(), &large, samples.data(), samples.size(), &error),
               error, FLUXION_OUT_OF_MEMORY, std::to_string(budget));
  CHECK(drawn(generator.get(), request_for(1, 0, 4, 4)) == small);
  CHECK(memory_of(device.get()).peak <= budget);
  CHECK(memory_of(device.get()).budget == budget);
}
