// What the runtime library says to calls that are wrong, and to files that are.
#include <algorithm>
#include <cstdint>
#include <ctime>
#include <limits>
#include <string>

#include "tests/embed/handles.h"
#include "tests/embed/tiny_samplers.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"
#include "tests/files/seal.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// What generate says to a request for up to 16 samples of 16 numbers.
std::string refused(const fluxion_generator* generator, const fluxion_request& request,
                    fluxion_status wanted = FLUXION_INVALID_ARGUMENT) {
  std::vector<float> samples(256);
  fluxion_error error;
  CHECK(fluxion_generate(generator, &request, samples.data(), samples.size(), &error) == wanted);
  CHECK(error.status == wanted);
  return error.message;
}

}  // namespace

TEST_CASE("NULL is refused, or allowed where the header says so", "[embed][errors]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const std::vector<std::byte> bytes = tiny_generator(1).bytes;
  const GeneratorHandle generator = open_bytes(device.get(), bytes);
  fluxion_error error;
  fluxion_generator* none = nullptr;
  fluxion_request request = FLUXION_REQUEST;
  fluxion_info info = FLUXION_INFO;
  fluxion_memory memory = FLUXION_MEMORY;
  std::vector<float> samples(16);
  std::vector<std::uint8_t> pixels(16);
  const auto wrong = [&](fluxion_status status) {
    check_failed(status, error, FLUXION_INVALID_ARGUMENT, "NULL");
  };
  wrong(fluxion_list_devices(nullptr, nullptr, &error));
  wrong(fluxion_device_open("cpu", nullptr, nullptr, &error));
  wrong(fluxion_device_memory(nullptr, &memory, &error));
  wrong(fluxion_device_memory(device.get(), nullptr, &error));
  wrong(fluxion_device_trim(nullptr, &error));
  wrong(fluxion_generator_open(nullptr, "a.fxn", &none, &error));
  wrong(fluxion_generator_open(device.get(), nullptr, &none, &error));
  wrong(fluxion_generator_open(device.get(), "a.fxn", nullptr, &error));
  wrong(fluxion_generator_open_memory(nullptr, bytes.data(), bytes.size(), &none, &error));
  wrong(fluxion_generator_open_memory(device.get(), nullptr, 0, &none, &error));
  wrong(fluxion_generator_open_memory(device.get(), bytes.data(), bytes.size(), nullptr, &error));
  wrong(fluxion_generator_info(nullptr, &info, &error));
  wrong(fluxion_generator_info(generator.get(), nullptr, &error));
  wrong(fluxion_generator_prepare(nullptr, 1, nullptr, &error));
  wrong(fluxion_cancel_create(nullptr, &error));
  wrong(fluxion_generate(nullptr, &request, samples.data(), 16, &error));
  wrong(fluxion_generate(generator.get(), nullptr, samples.data(), 16, &error));
  wrong(fluxion_generate(generator.get(), &request, nullptr, 16, &error));
  wrong(fluxion_generate_pixels(nullptr, &request, pixels.data(), 16, &error));
  wrong(fluxion_generate_pixels(generator.get(), nullptr, pixels.data(), 16, &error));
  wrong(fluxion_generate_pixels(generator.get(), &request, nullptr, 16, &error));
  CHECK(none == nullptr);

  fluxion_device_close(nullptr);
  fluxion_generator_close(nullptr);
  fluxion_cancel_request(nullptr);
  fluxion_cancel_destroy(nullptr);
  CHECK(fluxion_device_description(nullptr) == nullptr);
  // No error wanted, no bytes wanted, no samples wanted.
  CHECK(fluxion_generate(generator.get(), nullptr, nullptr, 0, nullptr) ==
        FLUXION_INVALID_ARGUMENT);
  CHECK(fluxion_generator_prepare(generator.get(), 1, nullptr, nullptr) == FLUXION_OK);
  request.count = 0;
  CHECK(fluxion_generate(generator.get(), &request, nullptr, 0, nullptr) == FLUXION_OK);
  fluxion_device* usual = nullptr;
  CHECK(fluxion_device_open(nullptr, nullptr, &usual, nullptr) == FLUXION_OK);
  CHECK_THAT(std::string(fluxion_device_description(usual)), has_text("cpu ("));
  fluxion_device_close(usual);
}

TEST_CASE("requests that can't be right are refused", "[embed][errors]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle images = open_bytes(device.get(), tiny_generator(1).bytes),
                        points = open_bytes(device.get(), restless_sampler());
  constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  const auto says = [&](const fluxion_request& request, const std::string& words) {
    CHECK_THAT(refused(images.get(), request), has_text(words));
  };
  says(request_for(0, -1, 1, 1), "outside");
  says(request_for(0, 0, -1, 1), "-1");
  says(request_for(0, huge, 1, 1), "outside");
  says(request_for(0, 1, huge, 1), "outside");
  says(request_for(0, (std::int64_t{1} << 37) - 1, 2, 1), "outside");
  says(request_for(0, 0, 1, -1), "1 to 65536");
  says(request_for(0, 0, 1, 65537), "1 to 65536");
  says(request_for(0, 0, 17, 1), "don't fit");

  fluxion_request request = request_for(0, 0, 2, 2);
  for (const std::int32_t wrong : {3, -2, std::numeric_limits<std::int32_t>::min()}) {
    const std::int32_t classes[] = {0, wrong};
    request.classes = classes;
    says(request, "class " + std::to_string(wrong) +
                      " is outside of 0 to 2 (a round one, a square one, \u00e9toile)");
  }
  const std::int32_t zeros[] = {0, 0};
  request.classes = zeros;
  CHECK_THAT(refused(points.get(), request), has_text("has none"));

  fluxion_error error;
  std::uint8_t pixels[6];
  request.classes = nullptr;
  check_failed(fluxion_generate_pixels(points.get(), &request, pixels, 6, &error), error,
               FLUXION_INVALID_ARGUMENT, "no images");
  check_failed(fluxion_generator_prepare(images.get(), 0, nullptr, &error), error,
               FLUXION_INVALID_ARGUMENT, "1 to 65536");
  // The very last sample of a seed.
  CHECK(drawn(images.get(), request_for(0, (std::int64_t{1} << 37) - 1, 1, 1)).size() == 16);
}

TEST_CASE("structures of another size are refused, and unset later options are not",
          "[embed][errors]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), tiny_generator(1).bytes);
  struct {
    fluxion_request request;
    std::uint64_t later[2];
  } larger{FLUXION_REQUEST, {0, 0}};
  std::vector<float> samples(16);
  fluxion_error error;
  const auto generate = [&] {
    return fluxion_generate(generator.get(), &larger.request, samples.data(), 16, &error);
  };
  larger.request.struct_size = sizeof larger;
  check_done(generate(), error);
  larger.later[1] = 1;
  check_failed(generate(), error, FLUXION_INVALID_ARGUMENT, "later version");
  for (const std::size_t size :
       {std::size_t{0}, sizeof(fluxion_request) - 1, std::numeric_limits<std::size_t>::max()}) {
    larger.request.struct_size = size;
    check_failed(generate(), error, FLUXION_INVALID_ARGUMENT, "struct_size");
  }
  fluxion_info info{};
  check_failed(fluxion_generator_info(generator.get(), &info, &error), error,
               FLUXION_INVALID_ARGUMENT, "struct_size");
  struct {
    fluxion_memory memory;
    std::uint64_t later;
  } report{FLUXION_MEMORY, 7};
  report.memory.struct_size = sizeof report;
  check_done(fluxion_device_memory(device.get(), &report.memory, &error), error);
  CHECK(report.later == 0);
}

TEST_CASE("devices that are not there are refused", "[embed][errors]") {
  fluxion_device* device = nullptr;
  fluxion_error error;
  for (const char* name :
       {"", "gpu", "cpu:0", "cpu:-1", "cpu:x", "cpu:99999", "reference", "vulkan:"})
    check_failed(fluxion_device_open(name, nullptr, &device, &error), error,
                 FLUXION_INVALID_ARGUMENT, "there are cpu");
  check_failed(fluxion_device_open("vulkan:255", nullptr, &device, &error), error,
               FLUXION_NO_DEVICE, "vulkan");
  CHECK(device == nullptr);

  std::vector<std::string> names;
  check_done(fluxion_list_devices(
                 [](void* data, const fluxion_device_info* info) {
                   CHECK(info->struct_size == sizeof(fluxion_device_info));
                   CHECK(info->description != nullptr);
                   static_cast<std::vector<std::string>*>(data)->push_back(info->name);
                 },
                 &names, &error),
             error);
  REQUIRE(!names.empty());
  CHECK(names.front() == "cpu");
}

TEST_CASE("files that are no generators are refused", "[embed][errors]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const ScratchFolder folder;
  fluxion_generator* generator = nullptr;
  fluxion_error error;
  const auto open = [&](const std::string& path) {
    return fluxion_generator_open(device.get(), path.c_str(), &generator, &error);
  };
  check_failed(open((folder / "none.fxn").string()), error, FLUXION_CANNOT_READ, "none.fxn");
  check_failed(open(folder.path().string()), error, FLUXION_CANNOT_READ, "regular file");
  check_failed(open("/dev/zero"), error, FLUXION_CANNOT_READ, "regular file");
  std::ofstream(folder / "empty.fxn").flush();
  check_failed(open((folder / "empty.fxn").string()), error, FLUXION_BAD_FILE, "empty.fxn");
  std::ofstream(folder / "text.fxn") << "not a generator, by far";
  check_failed(open((folder / "text.fxn").string()), error, FLUXION_BAD_FILE, "text.fxn");
  std::ofstream(folder / "model.safetensors") << std::string("\x02\0\0\0\0\0\0\0{}", 10);
  check_failed(open((folder / "model.safetensors").string()), error, FLUXION_BAD_FILE,
               "model.safetensors: this is a model file; `fluxion export");
  // A message is one line of UTF-8, whatever the path is.
  check_failed(open((folder / "a\nb\x7f\xff.fxn").string()), error, FLUXION_CANNOT_READ,
               "a?b??.fxn");
  // It is cut off at the end of a character.
  const std::string deep = (folder / std::string(200, 'x')).string();
  std::string path = "/";
  while (path.size() < 3000) path += "\u00e9";
  CHECK(open(path) == FLUXION_CANNOT_READ);
  CHECK(std::string(error.message).size() >= sizeof error.message - 2);
  CHECK((static_cast<unsigned char>(error.message[std::string(error.message).size() - 1]) == 0xA9));

  const std::vector<std::byte> whole = tiny_generator(1).bytes;
  const auto parse = [&](const std::vector<std::byte>& bytes) {
    return fluxion_generator_open_memory(device.get(), bytes.data(), bytes.size(), &generator,
                                         &error);
  };
  for (std::size_t size = 1; size < whole.size(); size += size < 300 ? 1 : 97) {
    CAPTURE(size);
    CHECK(parse({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}) ==
          FLUXION_BAD_FILE);
  }
  for (std::size_t at = 0; at < whole.size(); at += at < 200 ? 1 : 61) {
    std::vector<std::byte> damaged = whole;
    damaged[at] ^= std::byte{0x10};
    CAPTURE(at);
    CHECK(parse(damaged) == FLUXION_BAD_FILE);
  }
  CHECK(generator == nullptr);
  CHECK(memory_of(device.get()).in_use == 0);
}

TEST_CASE("a file whose sizes don't grow evenly draws what fits, and is refused for the rest",
          "[embed][errors]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  for (const Uneven kind : {Uneven::samples, Uneven::memory, Uneven::graph}) {
    CAPTURE(static_cast<int>(kind));
    const GeneratorHandle generator = open_bytes(device.get(), uneven_sampler(kind));
    CHECK(drawn(generator.get(), request_for(1, 0, 4, 2)).size() == 12);
    std::vector<float> samples(3 * 64);
    fluxion_error error;
    for (const std::int64_t batch : {3, 64}) {
      const fluxion_request request = request_for(1, 0, batch, batch);
      check_failed(
          fluxion_generate(generator.get(), &request, samples.data(), samples.size(), &error),
          error, FLUXION_BAD_FILE, "can't be run");
      check_failed(fluxion_generator_prepare(generator.get(), batch, nullptr, &error), error,
                   FLUXION_BAD_FILE, "can't be run");
    }
  }
}

TEST_CASE("a file whose noise nobody can draw is the file's fault", "[embed][errors]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator =
      open_bytes(device.get(), restless_sampler(std::int64_t{1} << 43));
  fluxion_error error;
  check_failed(fluxion_generator_prepare(generator.get(), 1, nullptr, &error), error,
               FLUXION_BAD_FILE, "can't be run");
}

TEST_CASE("numbers of a file that nothing can be computed with are refused", "[embed][errors]") {
  const auto refused = [](const auto& change, const std::string& words) {
    const std::vector<std::byte> bytes = guided_sampler();
    StoredSampler sampler = parse_sampler(bytes, nullptr);
    change(sampler);
    CHECK_THAT(message_of([&] { check(sampler); }), has_text(words));
  };
  constexpr double infinite = std::numeric_limits<double>::infinity(),
                   nan = std::numeric_limits<double>::quiet_NaN();
  for (const double number : {infinite, nan, 1e300})
    refused([&](StoredSampler& sampler) { sampler.scale = number; }, "its scale is not finite");
  for (const double number : {infinite, nan, -1.0, 1e300})
    refused([&](StoredSampler& sampler) { sampler.evaluations = number; },
            "number of network evaluations");
  for (const double number : {infinite, nan, 1e39})
    refused([&](StoredSampler& sampler) { sampler.steps.back().numbers.front() = number; },
            "a number of a step is not finite");
}

TEST_CASE("a file of many steps and weights opens in a time like its size", "[embed][errors]") {
  const std::vector<std::byte> bytes = long_sampler(1'000, 100'000);
  const DeviceHandle device = open_device_handle("cpu:1");
  const std::clock_t begun = std::clock();
  const GeneratorHandle generator = open_bytes(device.get(), bytes);
  // It took 9 s when each step looked at each weight.
  CHECK(static_cast<double>(std::clock() - begun) / CLOCKS_PER_SEC < 3);
  CHECK(info_of(generator.get()).steps == 100'000);
}

TEST_CASE("names in a file are UTF-8", "[embed][errors]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const std::string name = "tiny images";
  for (const char* other : {"tiny im\xe9ges", "tiny \xed\xa0\x80ges", "tiny imag\xc3\xa9"}) {
    std::vector<std::byte> bytes = tiny_generator(1).bytes;
    const auto wanted = std::as_bytes(std::span(name));
    const auto found = std::search(bytes.begin(), bytes.end(), wanted.begin(), wanted.end());
    REQUIRE(found != bytes.end());
    std::transform(other, other + name.size(), found, [](char c) { return std::byte(c); });
    seal(bytes);
    fluxion_generator* generator = nullptr;
    fluxion_error error;
    const fluxion_status status =
        fluxion_generator_open_memory(device.get(), bytes.data(), bytes.size(), &generator, &error);
    const GeneratorHandle made(generator);
    if (std::string(other).ends_with("\xa9"))
      check_done(status, error);
    else
      check_failed(status, error, FLUXION_BAD_FILE, "is not UTF-8");
  }
}

TEST_CASE("every status has a name, and the library its version", "[embed]") {
  for (std::int32_t status = FLUXION_OK; status <= FLUXION_INTERNAL; ++status)
    CHECK(std::string(fluxion_status_name(status)) != "unknown status");
  CHECK(std::string(fluxion_status_name(FLUXION_INTERNAL + 1)) == "unknown status");
  CHECK(std::string(fluxion_status_name(-1)) == "unknown status");
  CHECK(std::string(fluxion_version()) == std::to_string(FLUXION_VERSION_MAJOR) + "." +
                                              std::to_string(FLUXION_VERSION_MINOR) + "." +
                                              std::to_string(FLUXION_VERSION_PATCH));
}
