// The runtime on a Vulkan device of the application's own: samples in its buffer, in the order of
// its semaphores, and what is refused.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "embed/fluxion.hpp"
#include "tests/embed/handles.h"
#include "tests/embed/run_python.h"
#include "tests/embed/tiny_samplers.h"
#include "tests/files/scratch.h"
#include "tests/vulkan/application.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

constexpr VkBufferUsageFlags written = VK_BUFFER_USAGE_TRANSFER_DST_BIT;

fluxion_vulkan vulkan_of(const Application& application) {
  fluxion_vulkan vulkan = FLUXION_VULKAN;
  vulkan.get_instance_proc_addr = reinterpret_cast<void (*)()>(application.get());
  vulkan.instance = application.instance();
  vulkan.physical_device = application.physical();
  vulkan.api_version = application.api_version();
  vulkan.queue_family = application.family();
  vulkan.queue_is_unshared = 1;
  vulkan.device = application.device();
  vulkan.device_info = &application.device_info();
  return vulkan;
}

DeviceHandle device_on(const fluxion_vulkan& vulkan) {
  fluxion_device* device = nullptr;
  fluxion_error error;
  fluxion_device_options options = FLUXION_DEVICE_OPTIONS;
  options.kernel_cache = "";
  check_done(fluxion_device_from_vulkan(&vulkan, &options, &device, &error), error);
  return DeviceHandle(device);
}

fluxion_vulkan_target target_in(const Application::Memory& memory, std::uint64_t offset = 0) {
  fluxion_vulkan_target target = FLUXION_VULKAN_TARGET;
  target.buffer = memory.number();
  target.offset = offset;
  target.size = memory.bytes - offset;
  target.usage = memory.usage;
  return target;
}

std::vector<float> floats_at(const Application::Memory& memory, std::size_t offset,
                             std::size_t count) {
  std::vector<float> values(count);
  std::memcpy(values.data(), memory.host + offset, count * sizeof(float));
  return values;
}

void check_near(const std::vector<float>& found, const std::vector<float>& wanted) {
  REQUIRE(found.size() == wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(wanted[i]).margin(2e-5));
}

// Validated where the layer is installed; nothing without a software device.
std::unique_ptr<Application> application_for_tests() {
  if (auto application = Application::start({.validate = true})) return application;
  return Application::start();
}

}  // namespace

TEST_CASE("samples go into the application's buffer, and nowhere else", "[embed][vulkan][own]") {
  const auto application = application_for_tests();
  if (!application) return;
  const DeviceHandle cpu = open_device_handle("cpu:1");
  {
    const DeviceHandle device = device_on(vulkan_of(*application));
    for (const std::vector<std::byte>& bytes : {tiny_generator(3).bytes, restless_sampler()}) {
      const GeneratorHandle generator = open_bytes(device.get(), bytes),
                            expected = open_bytes(cpu.get(), bytes);
      const auto elements = static_cast<std::size_t>(info_of(generator.get()).elements);
      // Seven samples in batches of four, from a block of noise into the next.
      const fluxion_request request = request_for(6, 61, 7, 4);
      const std::size_t numbers = 7 * elements;
      const Application::Memory& memory =
          application->make_buffer((numbers + 20) * sizeof(float), written);
      fluxion_vulkan_target target = target_in(memory, 40);
      target.size = numbers * sizeof(float);
      fluxion_error error;
      check_done(fluxion_generate_to_vulkan(generator.get(), &request, &target, &error), error);
      check_near(floats_at(memory, 40, numbers), drawn(expected.get(), request));
      CHECK(floats_at(memory, 40, numbers) == drawn(generator.get(), request));
      CHECK(floats_at(memory, 0, 10) == std::vector<float>(10));
      CHECK(floats_at(memory, 40 + numbers * sizeof(float), 10) == std::vector<float>(10));
    }
  }
  CHECK(application->works());
  CHECK(application->messages() == "");
}

TEST_CASE("one batch is drawn without waiting for the application's semaphores",
          "[embed][vulkan][own]") {
  const auto application = application_for_tests();
  if (!application) return;
  {
    const DeviceHandle device = device_on(vulkan_of(*application));
    const GeneratorHandle generator = open_bytes(device.get(), tiny_generator(2).bytes);
    const fluxion_request request = request_for(3, 0, 2, 2);
    const std::vector<float> expected = drawn(generator.get(), request);
    const Application::Memory& memory = application->make_buffer(128, written);
    const VkSemaphore semaphore = application->make_timeline();
    fluxion_vulkan_target target = target_in(memory);
    target.wait_semaphore = target.signal_semaphore = Application::number(semaphore);
    target.wait_value = 1;
    target.signal_value = 2;
    fluxion_error error;
    check_done(fluxion_generate_to_vulkan(generator.get(), &request, &target, &error), error);
    CHECK(application->value(semaphore) == 0);
    CHECK(floats_at(memory, 0, 32) == std::vector<float>(32));
    application->signal(semaphore, 1);
    application->wait(semaphore, 2);
    CHECK(floats_at(memory, 0, 32) == expected);

    // No samples: nothing but the semaphores.
    fluxion_request none = request;
    none.count = 0;
    target.wait_value = 3, target.signal_value = 4;
    check_done(fluxion_generate_to_vulkan(generator.get(), &none, &target, &error), error);
    application->signal(semaphore, 3);
    application->wait(semaphore, 4);
    CHECK(floats_at(memory, 0, 32) == expected);
  }
  CHECK(application->messages() == "");
}

TEST_CASE("a call that fails waits for what it has submitted", "[embed][vulkan][own]") {
  // Not validated: the layer loses track of a timeline that another thread signals meanwhile.
  const auto application = Application::start();
  if (!application) return;
  {
    const DeviceHandle device = device_on(vulkan_of(*application));
    const GeneratorHandle generator = open_bytes(device.get(), tiny_generator(1).bytes);
    fluxion_request request = request_for(3, 0, 4, 2);
    const std::vector<float> expected = drawn(generator.get(), request_for(3, 0, 2, 2));
    const Application::Memory& memory = application->make_buffer(256, written);
    const VkSemaphore semaphore = application->make_timeline();
    fluxion_vulkan_target target = target_in(memory);
    target.wait_semaphore = Application::number(semaphore);
    target.wait_value = 1;
    // The copy of the first batch waits for the application, and the second batch is stopped.
    request.progress = [](void*, std::int64_t done, std::int64_t) { return done < 2 ? 0 : 1; };
    std::thread signals([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      application->signal(semaphore, 1);
    });
    fluxion_error error;
    check_failed(fluxion_generate_to_vulkan(generator.get(), &request, &target, &error), error,
                 FLUXION_CANCELLED, "step 2");
    CHECK(floats_at(memory, 0, 32) == expected);
    signals.join();
  }
  CHECK(application->works());
}

TEST_CASE("a target that can't take the samples is refused, and nothing is signalled",
          "[embed][vulkan][own]") {
  const auto application = Application::start();
  if (!application) return;
  const DeviceHandle device = device_on(vulkan_of(*application));
  const GeneratorHandle generator = open_bytes(device.get(), tiny_generator(1).bytes);
  const fluxion_request request = request_for(3, 0, 2, 2);
  const Application::Memory& memory = application->make_buffer(128, written);
  const VkSemaphore semaphore = application->make_timeline();
  fluxion_error error;
  const auto refused = [&](const auto& change, const std::string& words) {
    fluxion_vulkan_target target = target_in(memory);
    target.signal_semaphore = Application::number(semaphore);
    target.signal_value = 1;
    change(target);
    check_failed(fluxion_generate_to_vulkan(generator.get(), &request, &target, &error), error,
                 FLUXION_INVALID_ARGUMENT, words);
  };
  refused([](auto& target) { target.size = 127; }, "2 samples of 64 bytes each");
  refused([](auto& target) { target.offset = 2; }, "no multiple of 4");
  refused([](auto& target) { target.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT; }, "TRANSFER_DST");
  refused([](auto& target) { target.buffer = 0; }, "is missing");
  refused([](auto& target) { target.offset = ~std::uint64_t{3}; }, "can't have");
  refused([](auto& target) { target.struct_size = 3; }, "struct_size of 3");
  CHECK(fluxion_generate_to_vulkan(generator.get(), &request, nullptr, nullptr) ==
        FLUXION_INVALID_ARGUMENT);
  // A generator on a device of the library's.
  const DeviceHandle cpu = open_device_handle("cpu:1");
  const GeneratorHandle other = open_bytes(cpu.get(), tiny_generator(1).bytes);
  const fluxion_vulkan_target target = target_in(memory);
  check_failed(fluxion_generate_to_vulkan(other.get(), &request, &target, &error), error,
               FLUXION_INVALID_ARGUMENT, "no Vulkan device");
  // Stopped: nothing is signalled.
  fluxion_request stopped = request;
  stopped.progress = [](void*, std::int64_t, std::int64_t) { return 1; };
  refused([](auto& to) { to.size = 1; }, "don't fit");
  fluxion_vulkan_target late = target;
  late.signal_semaphore = Application::number(semaphore);
  late.signal_value = 1;
  check_failed(fluxion_generate_to_vulkan(generator.get(), &stopped, &late, &error), error,
               FLUXION_CANCELLED, "step 1");
  CHECK(application->works());
  CHECK(application->value(semaphore) == 0);
}

TEST_CASE("an application learns what to enable, and what is not", "[embed][vulkan][own]") {
  const auto application = Application::start({.timeline = false});
  if (!application) return;
  const fluxion_vulkan vulkan = vulkan_of(*application);
  std::string required;
  fluxion_error error;
  check_done(fluxion_vulkan_needs(
                 &vulkan,
                 [](void* data, const fluxion_vulkan_need* need) {
                   if (need->required)
                     *static_cast<std::string*>(data) +=
                         std::string(need->structure) + "::" + need->name + " ";
                 },
                 &required, &error),
             error);
  CHECK(required == "VkPhysicalDeviceTimelineSemaphoreFeatures::timelineSemaphore ");
  fluxion_device* device = nullptr;
  check_failed(fluxion_device_from_vulkan(&vulkan, nullptr, &device, &error), error,
               FLUXION_NO_DEVICE, "timelineSemaphore");
  CHECK(device == nullptr);
  const auto refused = [&](const auto& change, const std::string& words) {
    fluxion_vulkan changed = vulkan;
    change(changed);
    check_failed(fluxion_device_from_vulkan(&changed, nullptr, &device, &error), error,
                 FLUXION_INVALID_ARGUMENT, words);
  };
  refused([](auto& to) { to.get_instance_proc_addr = nullptr; }, "get_instance_proc_addr is NULL");
  refused([](auto& to) { to.instance = nullptr; }, "instance is NULL");
  refused([](auto& to) { to.physical_device = nullptr; }, "physical_device is NULL");
  refused([](auto& to) { to.device = nullptr; }, "device is NULL");
  refused([](auto& to) { to.device_info = nullptr; }, "device_info is NULL");
  refused([](auto& to) { to.struct_size = 8; }, "struct_size of 8");
  check_failed(fluxion_vulkan_needs(&vulkan, nullptr, nullptr, &error), error,
               FLUXION_INVALID_ARGUMENT, "function is NULL");
  CHECK(fluxion_device_from_vulkan(nullptr, nullptr, &device, nullptr) == FLUXION_INVALID_ARGUMENT);
}

TEST_CASE("the application's lock is called around each use of its queue", "[embed][vulkan][own]") {
  const auto application = application_for_tests();
  if (!application) return;
  struct Lock {
    int held = 0, uses = 0, wrong = 0;
  } lock;
  fluxion_vulkan vulkan = vulkan_of(*application);
  vulkan.queue_is_unshared = 0;
  vulkan.lock_data = &lock;
  vulkan.lock = [](void* data) {
    auto& to = *static_cast<Lock*>(data);
    ++to.uses;
    if (++to.held != 1) ++to.wrong;
  };
  vulkan.unlock = [](void* data) {
    auto& to = *static_cast<Lock*>(data);
    if (--to.held != 0) ++to.wrong;
  };
  {
    const DeviceHandle device = device_on(vulkan);
    const GeneratorHandle generator = open_bytes(device.get(), tiny_generator(2).bytes);
    drawn(generator.get(), request_for(0, 0, 2, 2));
  }
  CHECK(lock.uses > 2);
  CHECK(lock.wrong == 0);
  CHECK(application->messages() == "");
}

TEST_CASE("a call on a GPU that is cancelled submits no more slices of its step",
          "[embed][vulkan][own][cancel]") {
  const auto application = application_for_tests();
  if (!application) return;
  fluxion_error error;
  fluxion_cancel* made = nullptr;
  check_done(fluxion_cancel_create(&made, &error), error);
  const CancelHandle cancel(made);
  // Uses of the queue so far, at the first step's end and at the second's, and when to cancel.
  struct Uses {
    fluxion_cancel* cancel;
    int now = 0, first = 0, second = 0, cancel_at = -1;
  } uses{cancel.get()};
  fluxion_vulkan vulkan = vulkan_of(*application);
  vulkan.queue_is_unshared = 0;
  vulkan.lock_data = &uses;
  vulkan.lock = [](void* data) {
    auto& to = *static_cast<Uses*>(data);
    if (++to.now == to.cancel_at) fluxion_cancel_request(to.cancel);
  };
  vulkan.unlock = [](void*) {};
  {
    const DeviceHandle device = device_on(vulkan);
    // The product of a step is a slice by itself, as far as is known before it ran.
    const GeneratorHandle generator =
        open_bytes(device.get(), tiny_generator(3, {48, 48, 1}).bytes);
    fluxion_request request = request_for(1, 0, 16, 16);
    request.cancel = cancel.get();
    request.progress_data = &uses;
    request.progress = [](void* data, std::int64_t done, std::int64_t) {
      auto& to = *static_cast<Uses*>(data);
      if (done == 1) to.first = to.now;
      if (done == 2) to.second = to.now;
      return 0;
    };
    drawn(generator.get(), request);  // plans, too
    uses.now = 0;
    drawn(generator.get(), request);
    REQUIRE(uses.second - uses.first >= 2);
    uses.cancel_at = uses.now + uses.first + 1;  // the next call's second step begins
    std::vector<float> samples(16 * 48 * 48);
    check_failed(
        fluxion_generate(generator.get(), &request, samples.data(), samples.size(), &error), error,
        FLUXION_CANCELLED, "stopped before");
    // (Where measured times have cut the first step anew meanwhile, it ends within that one.)
    CHECK(uses.now == uses.cancel_at);
    request.cancel = nullptr;
    uses.cancel_at = -1;
    drawn(generator.get(), request);
  }
  CHECK(application->messages() == "");
}

TEST_CASE("the C++ wrapper draws into the application's buffer", "[embed][vulkan][own]") {
  const auto application = application_for_tests();
  if (!application) return;
  const std::vector<std::byte> bytes = tiny_generator(1).bytes;
  {
    const runtime::Device device(vulkan_of(*application));
    const runtime::Generator generator(device, bytes.data(), bytes.size());
    const Application::Memory& memory = application->make_buffer(128, written);
    runtime::Request request;
    request.seed = 4;
    request.count = 2;
    generator.generate_to(target_in(memory), request);
    CHECK(floats_at(memory, 0, 32) == generator.generate(request));
    fluxion_vulkan_target small = target_in(memory);
    small.size = 4;
    CHECK_THROWS_AS(generator.generate_to(small, request), runtime::Error);
  }
  CHECK(application->messages() == "");
}

#if defined(__unix__)

TEST_CASE("the Python wrapper draws into the application's buffer",
          "[embed][vulkan][own][wrappers]") {
  const ScratchFolder folder;
  write_bytes(folder / "tiny.fxn", tiny_generator(2).bytes);
  const std::string text = run_python("python_vulkan_caller.py", folder);
  if (contains(text, "python3: not found") || text == "there is no software device\n") {
    WARN("there is no Python, or no software device: skipped");
    return;
  }
  CHECK(text == "it draws into the application's buffer\n");
}

#endif

#if defined(FLUXION_VULKAN_EXAMPLE)

namespace {

// The pixels of a grey picture that examples/embed/c/write_png.h wrote: rows that are not
// compressed.
std::vector<int> grey_pixels(const std::string& png, std::size_t width, std::size_t height) {
  const std::size_t data = 8 + 25 + 8 + 2;  // signature, header, start of the data, of zlib
  std::vector<int> pixels;
  REQUIRE(png.size() >= data + height * (6 + width));
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0; x < width; ++x)
      pixels.push_back(static_cast<unsigned char>(png[data + y * (6 + width) + 6 + x]));
  return pixels;
}

}  // namespace

TEST_CASE("the example draws into a buffer of its own device", "[embed][vulkan][own]") {
  if (!Application::start()) return;
  const ScratchFolder folder;
  const std::string generator = (folder / "tiny.fxn").string(),
                    png = (folder / "tiny.png").string();
  const std::vector<std::byte> bytes = tiny_generator(2, {6, 5, 1}).bytes;
  std::ofstream(generator, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  const std::string log = (folder / "log").string();
  const auto run = [&](const std::string& from, const std::string& to) {
    const std::string command = "FLUXION_VULKAN_CACHE= '" FLUXION_VULKAN_EXAMPLE "' '" + from +
                                "' '" + to + "' 9 2> '" + log + "'";
    return std::system(command.c_str());
  };
  const int code = run(generator, png);
  INFO(text_of(log));
  REQUIRE(code == 0);

  const DeviceHandle cpu = open_device_handle("cpu:1");
  const GeneratorHandle expected = open_bytes(cpu.get(), bytes);
  const fluxion_request request = request_for(9, 0, 1, 1);
  std::vector<std::uint8_t> wanted(30);
  fluxion_error error;
  check_done(fluxion_generate_pixels(expected.get(), &request, wanted.data(), 30, &error), error);
  const std::vector<int> found = grey_pixels(text_of(png), 5, 6);
  for (std::size_t i = 0; i < wanted.size(); ++i) CHECK(std::abs(found[i] - wanted[i]) <= 1);

  CHECK(run(png, png + ".2") != 0);
  CHECK_THAT(text_of(log), has_text("tiny.png"));
}

#endif
