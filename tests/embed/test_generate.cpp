// What the runtime library draws.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "tests/embed/handles.h"
#include "tests/embed/tiny_samplers.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

std::vector<float> rows(const std::vector<float>& samples, std::size_t elements, std::size_t first,
                        std::size_t count) {
  return {samples.begin() + static_cast<std::ptrdiff_t>(first * elements),
          samples.begin() + static_cast<std::ptrdiff_t>((first + count) * elements)};
}

}  // namespace

TEST_CASE("the runtime draws what the sampler draws, bit for bit", "[embed]") {
  const TinyGenerator tiny = tiny_generator(3);
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), tiny.bytes);
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1} << 63 | 77}) {
    const std::vector<std::int32_t> classes{0, 1, 2, 2, 1, 0, 0, 1, 2, 3};
    const std::vector<float> expected = tiny.sampler.sample(10, 4, seed, classes);
    std::vector<std::int32_t> given = classes;
    given.back() = FLUXION_OPEN_CLASS;  // the sampler's class 3
    fluxion_request request = request_for(seed, 0, 10, 4);
    request.classes = given.data();
    CHECK(drawn(generator.get(), request) == expected);
    // The same samples, asked for in two parts.
    fluxion_request later = request_for(seed, 4, 6, 4);
    later.classes = given.data() + 4;
    CHECK(drawn(generator.get(), later) == rows(expected, 16, 4, 6));
  }
}

TEST_CASE("without classes, samples are of the usual ones in turn, by their number", "[embed]") {
  const TinyGenerator tiny = tiny_generator(1);
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), tiny.bytes);
  const std::vector<std::int32_t> usual{2, 0, 2, 0, 2, 0, 2};
  fluxion_request named = request_for(5, 0, 7, 7);
  named.classes = usual.data();
  const std::vector<float> all = drawn(generator.get(), named);
  CHECK(drawn(generator.get(), request_for(5, 0, 7, 7)) == all);
  CHECK(drawn(generator.get(), request_for(5, 3, 4, 7)) == rows(all, 16, 3, 4));
  // 0 is a batch of the count.
  CHECK(drawn(generator.get(), request_for(5, 0, 7, 0)) == all);
}

TEST_CASE("starts, memory, scales and draws are those that the steps name", "[embed]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), restless_sampler());
  // Across the 64 samples of one key.
  for (const std::int64_t batch : {1, 3, 70}) {
    const std::vector<float> expected = restless_samples(11, 60, 9),
                             found = drawn(generator.get(), request_for(11, 60, 9, batch));
    for (std::size_t i = 0; i < expected.size(); ++i)
      CHECK(found[i] == Approx(expected[i]).margin(1e-5));
  }
  const fluxion_info info = info_of(generator.get());
  CHECK(info.rank == 1);
  CHECK(info.shape[0] == 3);
  CHECK(info.steps == 2);
  CHECK(info.classes == 0);
  CHECK(info.channels == 0);
  CHECK(info.class_names == nullptr);
}

TEST_CASE("pixels are rounded, clamped, and black where they are no number", "[embed]") {
  const std::vector<float> values{-1,    1,     0,    -0.996f, 0.99f,   -1.0001f, 3,       -1e20f,
                                  1e20f, 1e30f, 0.5f, -0.5,    0.0039f, 0.0040f,  -0.9961f};
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), constant_image(values, 3, 5));
  std::vector<std::uint8_t> pixels(2 * values.size(), 99);
  const fluxion_request request = request_for(0, 0, 2, 2);
  fluxion_error error;
  check_done(
      fluxion_generate_pixels(generator.get(), &request, pixels.data(), pixels.size(), &error),
      error);
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    const float value = values[i % values.size()];
    CAPTURE(i, value);
    const double level = value == 1e30f ? 0 : std::clamp((double{value} + 1) * 127.5, 0.0, 255.0);
    CHECK(std::abs(pixels[i] - level) <= 0.5 + 1e-4);
  }
  CHECK(pixels[0] == 0);
  CHECK(pixels[1] == 255);
  CHECK(pixels[2] == 128);
  CHECK(pixels[9] == 0);
  CHECK(std::isnan(drawn(generator.get(), request)[9]));
}

TEST_CASE("a file with steps and weights of every kind and free guidance draws", "[embed]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), guided_sampler());
  const std::vector<std::int32_t> classes{0, 1, FLUXION_OPEN_CLASS};
  fluxion_request request = request_for(4, 0, 3, 2);
  request.classes = classes.data();
  const std::vector<float> usual = drawn(generator.get(), request);
  request.set_guidance = 1;
  request.guidance = 1.5;
  CHECK(drawn(generator.get(), request) == usual);
  request.guidance = 4;
  const std::vector<float> stronger = drawn(generator.get(), request);
  for (const std::size_t sample : {0, 1})
    CHECK(rows(stronger, 40, sample, 1) != rows(usual, 40, sample, 1));
  // Nothing guides the open class away from itself.
  CHECK(rows(stronger, 40, 2, 1) == rows(usual, 40, 2, 1));
  for (const float value : stronger) CHECK(std::isfinite(value));
}

TEST_CASE("f64 is computed where there are kernels for it", "[embed]") {
  // scripts/check_runtime.sh has this file drawn, or refused, by the library alone. After a change
  // that is meant, set FLUXION_UPDATE_PINNED=1 and run this test once.
  const std::filesystem::path path = FLUXION_SOURCE_DIR "/tests/embed/golden/wide-image.fxn";
  const std::vector<std::byte> bytes = wide_image();
  if (std::getenv("FLUXION_UPDATE_PINNED"))
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
  std::ifstream file(path, std::ios::binary);
  const std::string pinned(std::istreambuf_iterator<char>(file), {});
  CHECK(pinned == std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));

  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), bytes);
  const fluxion_request request = request_for(7, 0, 3, 2);
  std::vector<float> noise(3 * 16), samples = drawn(generator.get(), request);
  fluxion_error error;
  check_done(fluxion_noise(generator.get(), &request, noise.data(), noise.size(), &error), error);
  for (float& value : noise) value *= 0.5f;
  CHECK(samples == noise);
}

TEST_CASE("a generator says what it is", "[embed]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), tiny_generator(2, {4, 5, 3}).bytes);
  const fluxion_info info = info_of(generator.get());
  CHECK(std::string(info.name) == "tiny images");
  CHECK(info.rank == 3);
  CHECK(info.shape[1] == 5);
  CHECK(info.elements == 60);
  CHECK(info.height == 4);
  CHECK(info.width == 5);
  CHECK(info.channels == 3);
  CHECK(info.classes == 3);
  CHECK(std::string(info.class_names[2]) == "\u00e9toile");
  CHECK(info.usual_class_count == 2);
  CHECK(info.usual_classes[0] == 2);
  CHECK(info.open_class == 1);
  CHECK(info.steps == 2);
  CHECK(info.evaluations == 2);
  CHECK(info.weights == (60 * 60 + 4 * 60) * sizeof(float));
}

TEST_CASE("a generator opens from a file as from memory, and outlives both", "[embed]") {
  const TinyGenerator tiny = tiny_generator(1);
  const ScratchFolder folder;
  const std::string path = (folder / "\u00e9.fxn").string();
  GeneratorHandle from_file, from_memory;
  {
    const DeviceHandle device = open_device_handle("cpu:1");
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(tiny.bytes.data()),
               static_cast<std::streamsize>(tiny.bytes.size()));
    fluxion_generator* generator = nullptr;
    fluxion_error error;
    check_done(fluxion_generator_open(device.get(), path.c_str(), &generator, &error), error);
    from_file.reset(generator);
    std::filesystem::remove(path);
    std::vector<std::byte> bytes = tiny.bytes;
    from_memory = open_bytes(device.get(), bytes);
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
  }
  const fluxion_request request = request_for(3, 0, 2, 2);
  CHECK(drawn(from_file.get(), request) == drawn(from_memory.get(), request));
}

TEST_CASE("noise that was asked for gives the same samples, and mixtures of it give others",
          "[embed]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const TinyGenerator tiny = tiny_generator(3);
  for (const std::vector<std::byte>& bytes : {tiny.bytes, restless_sampler()}) {
    const GeneratorHandle generator = open_bytes(device.get(), bytes);
    const auto elements = static_cast<std::size_t>(info_of(generator.get()).elements);
    const std::vector<float> expected = drawn(generator.get(), request_for(4, 62, 5, 3));
    fluxion_request request = request_for(4, 62, 5, 3);
    std::vector<float> noise(5 * elements);
    fluxion_error error;
    REQUIRE(fluxion_noise(generator.get(), &request, noise.data(), noise.size(), &error) ==
            FLUXION_OK);
    request.noise = noise.data();
    CHECK(drawn(generator.get(), request) == expected);
    for (float& each : noise) each = -each;
    CHECK(drawn(generator.get(), request) != expected);
    CHECK(fluxion_noise(generator.get(), &request, noise.data(), noise.size() - 1, &error) ==
          FLUXION_INVALID_ARGUMENT);
    CHECK(fluxion_noise(generator.get(), &request, nullptr, 0, &error) == FLUXION_INVALID_ARGUMENT);
    CHECK(fluxion_noise(nullptr, &request, noise.data(), noise.size(), &error) ==
          FLUXION_INVALID_ARGUMENT);
  }
}
