// Handles of the C API that close themselves, and checks of what a call said.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "embed/fluxion.h"
#include "tests/catch.h"

namespace fluxion::testing {

struct CloseDevice {
  void operator()(fluxion_device* device) const { fluxion_device_close(device); }
};
struct CloseGenerator {
  void operator()(fluxion_generator* generator) const { fluxion_generator_close(generator); }
};
struct DestroyCancel {
  void operator()(fluxion_cancel* cancel) const { fluxion_cancel_destroy(cancel); }
};
using DeviceHandle = std::unique_ptr<fluxion_device, CloseDevice>;
using GeneratorHandle = std::unique_ptr<fluxion_generator, CloseGenerator>;
using CancelHandle = std::unique_ptr<fluxion_cancel, DestroyCancel>;

inline void check_done(fluxion_status status, const fluxion_error& error) {
  INFO(error.message);
  REQUIRE(status == FLUXION_OK);
  REQUIRE(error.status == FLUXION_OK);
  REQUIRE(error.message[0] == '\0');
}

// It failed so, with this among its words.
inline void check_failed(fluxion_status status, const fluxion_error& error, fluxion_status wanted,
                         const std::string& words) {
  INFO(error.message);
  CHECK(status == wanted);
  CHECK(error.status == wanted);
  CHECK_THAT(std::string(error.message), has_text(words));
}

inline DeviceHandle open_device_handle(const char* name, std::uint64_t budget = 0) {
  fluxion_device* device = nullptr;
  fluxion_error error;
  fluxion_device_options options = FLUXION_DEVICE_OPTIONS;
  options.memory_budget = budget;
  options.kernel_cache = "";
  check_done(fluxion_device_open(name, &options, &device, &error), error);
  return DeviceHandle(device);
}

inline GeneratorHandle open_bytes(fluxion_device* device, const std::vector<std::byte>& bytes) {
  fluxion_generator* generator = nullptr;
  fluxion_error error;
  check_done(fluxion_generator_open_memory(device, bytes.data(), bytes.size(), &generator, &error),
             error);
  return GeneratorHandle(generator);
}

inline fluxion_info info_of(const fluxion_generator* generator) {
  fluxion_info info = FLUXION_INFO;
  fluxion_error error;
  check_done(fluxion_generator_info(generator, &info, &error), error);
  return info;
}

inline fluxion_memory memory_of(const fluxion_device* device) {
  fluxion_memory memory = FLUXION_MEMORY;
  fluxion_error error;
  check_done(fluxion_device_memory(device, &memory, &error), error);
  return memory;
}

inline fluxion_request request_for(std::uint64_t seed, std::int64_t first, std::int64_t count,
                                   std::int64_t batch) {
  fluxion_request request = FLUXION_REQUEST;
  request.seed = seed;
  request.first = first;
  request.count = count;
  request.batch = batch;
  return request;
}

inline std::vector<float> drawn(const fluxion_generator* generator,
                                const fluxion_request& request) {
  std::vector<float> samples(static_cast<std::size_t>(request.count * info_of(generator).elements));
  fluxion_error error;
  check_done(fluxion_generate(generator, &request, samples.data(), samples.size(), &error), error);
  return samples;
}

}  // namespace fluxion::testing
