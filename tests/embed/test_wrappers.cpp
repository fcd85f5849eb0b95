// The wrappers for C++ and Python draw what the C API draws, and raise what it reports.
#include <cstring>
#include <stdexcept>
#include <thread>
#include <utility>

#include "embed/fluxion.hpp"
#include "tests/embed/handles.h"
#include "tests/embed/run_python.h"
#include "tests/embed/tiny_samplers.h"
#include "tests/faults/faults.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("the C++ wrapper draws, reports and throws", "[embed][wrappers]") {
  const TinyGenerator tiny = tiny_generator(2);
  const ScratchFolder folder;
  const std::string path = (folder / "tiny.fxn").string();
  write_bytes(path, tiny.bytes);
  CHECK(runtime::devices().front().name == "cpu");

  runtime::Device device("cpu:1", 1 << 30);
  CHECK(device.description().find("1 thread") != std::string::npos);
  CHECK(device.memory().budget == 1 << 30);
  const runtime::Generator generator(device, path),
      from_memory(device, tiny.bytes.data(), tiny.bytes.size());
  CHECK(generator.info().elements == 16);
  CHECK(generator.class_named("a round one") == 0);
  CHECK(generator.class_named("\u00e9toile") == 2);
  CHECK_THROWS_WITH(generator.class_named("a square"),
                    "no class is called 'a square'; there are a round one, a square one, "
                    "\u00e9toile");
  CHECK_THROWS_AS(generator.class_named("1"), runtime::Error);
  CHECK(generator.prepare(2) > generator.info().weights);
  const std::vector<float> samples =
      generator.generate({.seed = 4, .count = 3, .classes = {0, 1, 2}});
  CHECK(samples == tiny.sampler.sample(3, 3, 4, {0, 1, 2}));
  CHECK(from_memory.generate({.seed = 4, .count = 3, .classes = {0, 1, 2}}) == samples);
  CHECK(generator.pixels({.seed = 4, .count = 3}).size() == 48);
  CHECK(generator.generate({.count = 0}).empty());
  device.trim();

  const auto status_of = [](const auto& call) {
    try {
      call();
    } catch (const runtime::Error& error) {
      CHECK(std::strlen(error.what()) > 0);
      return error.status();
    }
    return FLUXION_OK;
  };
  CHECK(status_of([&] { runtime::Device("nothing"); }) == FLUXION_INVALID_ARGUMENT);
  CHECK(status_of([&] { runtime::Generator(device, path + "x"); }) == FLUXION_CANNOT_READ);
  CHECK(status_of([&] { runtime::Generator(device, "x", 1); }) == FLUXION_BAD_FILE);
  CHECK(status_of([&] { generator.generate({.count = -1}); }) == FLUXION_INVALID_ARGUMENT);
  CHECK(status_of([&] { generator.generate({.count = 2, .classes = {1}}); }) ==
        FLUXION_INVALID_ARGUMENT);
  // More than addresses can reach, and than a size can count.
  for (const std::int64_t count : {std::int64_t{1} << 46, std::int64_t{1} << 62}) {
    if (sanitized && count == std::int64_t{1} << 46) continue;  // which ends the process
    CAPTURE(count);
    CHECK(status_of([&] { generator.generate({.count = count}); }) == FLUXION_OUT_OF_MEMORY);
    CHECK(status_of([&] { generator.pixels({.count = count}); }) == FLUXION_OUT_OF_MEMORY);
    CHECK(status_of([&] { generator.noise({.count = count}); }) == FLUXION_OUT_OF_MEMORY);
  }
  runtime::Device moved("cpu:1");
  const runtime::Device to = std::move(moved);
  CHECK(status_of([&] { moved.description(); }) == FLUXION_INVALID_ARGUMENT);
  CHECK(to.description() == device.description());

  std::int64_t last = 0;
  CHECK(status_of([&] {
          generator.generate({.count = 8, .batch = 2, .progress = [&](std::int64_t done, auto) {
                                last = done;
                                return done < 3;
                              }});
        }) == FLUXION_CANCELLED);
  CHECK(last == 3);
  CHECK_THROWS_AS(generator.generate({.progress = [](auto, auto) -> bool {
    throw std::out_of_range("of the caller's own");
  }}),
                  std::out_of_range);
  runtime::Cancel cancel;
  std::thread([&] { cancel.request(); }).join();
  CHECK(status_of([&] { generator.generate({.cancel = &cancel}); }) == FLUXION_CANCELLED);
}

#if defined(__unix__)

TEST_CASE("the Python wrapper draws, reports and raises", "[embed][wrappers]") {
  if (sanitized) return;  // Python would have to be sanitized, too
  const TinyGenerator tiny = tiny_generator(2);
  const ScratchFolder folder;
  write_bytes(folder / "tiny.fxn", tiny.bytes);
  const std::vector<float> expected = tiny.sampler.sample(3, 3, 4, {0, 3, 2});
  std::vector<std::byte> bytes(expected.size() * sizeof(float));
  std::memcpy(bytes.data(), expected.data(), bytes.size());
  write_bytes(folder / "expected", bytes);
  const std::string text = run_python("python_caller.py", folder);
  if (contains(text, "python3: not found")) {
    WARN("there is no Python: skipped");
    return;
  }
  CHECK(text == "it draws, reports and raises\n");
}

#endif
