// Vulkan: what fails, how it is said, and what goes on afterwards.
#include <bit>
#include <functional>
#include <stop_token>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/program.h"
#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/runtime/small_kernels.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

struct Faulty {
  std::shared_ptr<Faults> faults = std::make_shared<Faults>();
  std::optional<Device> device = software_vulkan({.faults = faults});
};

Aftermath aftermath_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.states_aftermath());
    return error.aftermath();
  }
  FAIL("nothing was thrown");
  return {};
}

}  // namespace

TEST_CASE("an allocation that fails once is tried again, after what is kept was given back",
          "[vulkan][faults]") {
  const Faulty faulty;
  if (!faulty.device) return;
  Backend& backend = faulty.device->backend();
  { const auto kept = backend.allocate(std::size_t{1} << 20); }
  faulty.faults->memory.fail_at(1);
  CHECK(backend.allocate(std::size_t{5} << 20)->bytes() == std::size_t{5} << 20);
}

TEST_CASE("a device without memory says so, and goes on once there is some", "[vulkan][faults]") {
  const Faulty faulty;
  if (!faulty.device) return;
  Backend& backend = faulty.device->backend();
  const auto held = backend.allocate(1000);
  const std::size_t before = backend.in_use().buffers;
  faulty.faults->memory.fail_at(1, true);
  CHECK_THROWS_AS(backend.allocate(std::size_t{5} << 20), OutOfMemory);
  CHECK(backend.in_use().buffers == before);
  faulty.faults->memory.never();
  CHECK_NOTHROW(backend.allocate(std::size_t{5} << 20));
}

TEST_CASE("whichever allocation fails for good, a call writes nothing and may be made again",
          "[vulkan][faults]") {
  const KernelWork work = doubling(1000);
  for (int nth = 1; nth <= 3; ++nth) {
    const Faulty faulty;
    if (!faulty.device) return;
    const auto run = [&] { return run_work(*faulty.device, work, {counting(1000), Words(1000)}); };
    faulty.faults->memory.fail_at(nth, true);
    bool failed = false;
    try {
      run();
    } catch (const OutOfMemory& error) {
      failed = true;
      CHECK(error.aftermath() == Aftermath::nothing_written);
    }
    faulty.faults->memory.never();
    CHECK(is_doubled(run()[1]));
    CHECK((failed || nth > 1));
    if (!failed) break;  // there are no more allocations
  }
}

TEST_CASE("a recording that fails leaves nothing written, and the next call records anew",
          "[vulkan][faults]") {
  const Faulty faulty;
  if (!faulty.device) return;
  const KernelWork work = doubling(1000);
  faulty.faults->recording.fail_at(1);
  CHECK(aftermath_of([&] {
          run_work(*faulty.device, work, {counting(1000), Words(1000)});
        }) == Aftermath::nothing_written);
  CHECK(is_doubled(run_work(*faulty.device, work, {counting(1000), Words(1000)})[1]));
}

TEST_CASE("a driver that refuses a kernel is an error with the kernel's name", "[vulkan][faults]") {
  const Faulty faulty;
  if (!faulty.device) return;
  faulty.faults->pipeline.fail_at(1);
  CHECK_THAT(message_of<DeviceError>([&] {
               run_work(*faulty.device, doubling(1000), {counting(1000), Words(1000)});
             }),
             has_text("'double'") && has_text("VK_ERROR_UNKNOWN"));
  CHECK(is_doubled(run_work(*faulty.device, doubling(1000), {counting(1000), Words(1000)})[1]));
}

TEST_CASE("a device that is lost when work is submitted is dead from then on", "[vulkan][faults]") {
  const Faulty faulty;
  if (!faulty.device) return;
  Backend& backend = faulty.device->backend();
  const auto buffer = backend.allocate(64);
  faulty.faults->submit.fail_at(1);
  const auto run = [&] { run_work(*faulty.device, doubling(1000), {counting(1000), Words(1000)}); };
  CHECK(aftermath_of(run) == Aftermath::device_dead);
  CHECK_THAT(message_of<DeviceError>(run), has_text("open it again"));
  CHECK_THROWS_AS(backend.allocate(64), DeviceError);
  std::vector<std::byte> bytes(64);
  CHECK_THROWS_AS(backend.download(*buffer, DType::u32, bytes), DeviceError);
  CHECK_THROWS_AS(backend.upload(*buffer, DType::u32, bytes), DeviceError);
  // Another device of the same process goes on.
  const std::optional<Device> other = software_vulkan();
  CHECK(is_doubled(run_work(*other, doubling(1000), {counting(1000), Words(1000)})[1]));
}

TEST_CASE("a device that is lost later throws at every wait, each time", "[vulkan][faults]") {
  const Faulty faulty;
  if (!faulty.device) return;
  Call call(*faulty.device, doubling(1000), {counting(1000), Words(1000)});
  call.run();
  faulty.faults->wait.fail_at(1);
  const Event event = call.submit();
  // lavapipe may be done before anybody waits.
  if (event.done()) return;
  for (int i = 0; i < 2; ++i) CHECK(aftermath_of([&] { event.wait(); }) == Aftermath::device_dead);
  CHECK_FALSE(event.done());
  CHECK(aftermath_of([&] { call.submit(); }) == Aftermath::device_dead);
}

TEST_CASE("a timeline that leaves its range is a lost device, not work that is done",
          "[vulkan][faults]") {
  const Faulty faulty;
  if (!faulty.device) return;
  Call call(*faulty.device, doubling(1000), {counting(1000), Words(1000)});
  call.run();
  faulty.faults->runaway = true;
  const Event event = call.submit();
  CHECK_FALSE(event.done());
  CHECK(aftermath_of([&] { event.wait(); }) == Aftermath::device_dead);
  CHECK_THAT(message_of<DeviceError>([&] { call.submit(); }), has_text("left its range"));
}

TEST_CASE("where a driver refuses a kernel, the short form of the program runs",
          "[vulkan][faults]") {
  const auto faults = std::make_shared<Faults>();
  const std::optional<Device> device = software_vulkan(
      {.adjust = [](DeviceFacts& facts) { facts.shaders.short_code = false; }, .faults = faults});
  if (!device) return;
  const auto f = [](const Tensor& x) { return x * 2.0; };
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3}, {3}, *device);
  faults->pipeline.fail_at(1);
  CHECK(compile(f)(x).to_host<float>() == std::vector<float>{2, 4, 6});
  faults->pipeline.fail_at(1, true);
  CHECK_THAT(
      message_of<DeviceError>([&] { compile([](const Tensor& x) { return exp(x) + x; })(x); }),
      has_text("VK_ERROR_UNKNOWN"));
}

TEST_CASE("a kernel that is larger than the device is refused by name", "[vulkan][faults]") {
  const std::optional<Device> device =
      software_vulkan({.adjust = [](DeviceFacts& facts) { facts.shaders.max_invocations = 32; }});
  if (!device) return;
  CHECK_THROWS_WITH(run_work(*device, doubling(1000), {counting(1000), Words(1000)}),
                    has_text("'double'") && has_text("64 invocations, at most 32"));
}

TEST_CASE("f64 and i64 are stored and copied, and refused by name where they are computed with",
          "[vulkan][faults]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  const Tensor x = full({3}, 2, DType::f64, *device);
  CHECK_THAT(message_of<DTypeError>([&] { eval(x + x); }), has_text("f64"));
  const Tensor labels =
      Tensor::from(std::vector<std::int64_t>{1, std::int64_t{1} << 40}, {2}, *device);
  CHECK(labels.to_host<std::int64_t>() == std::vector<std::int64_t>{1, std::int64_t{1} << 40});
  const Tensor kept = Tensor::from(std::vector<double>{1e300, -0.0}, {2}, *device);
  CHECK(kept.to_host<double>() == std::vector<double>{1e300, -0.0});
}

TEST_CASE("devices are opened and closed a hundred times, with work between", "[vulkan][faults]") {
  for (int i = 0; i < 100; ++i) {
    const std::optional<Device> device = software_vulkan();
    if (!device) return;
    if (i % 10 == 0)
      CHECK(is_doubled(run_work(*device, doubling(1000), {counting(1000), Words(1000)})[1]));
  }
}

TEST_CASE("a stop takes effect before the next slice of a call, not after its last one",
          "[vulkan][faults][cancel]") {
  for (const bool timeline : {true, false}) {
    const auto faults = std::make_shared<Faults>();
    const std::optional<Device> device =
        software_vulkan({.adjust = [=](DeviceFacts& facts) { facts.timeline_semaphore = timeline; },
                         .faults = faults,
                         .slice_seconds = 1e-4});
    if (!device) return;
    Queue& queue = logical_device(*device)->queue();
    constexpr int dispatches = 20;
    const Call call(*device, doubling_in_place(1000, dispatches), {counting(1000)});
    std::stop_source source;
    int submissions = 0, far_behind = 0;
    faults->before_submit = [&] {
      ++submissions;
      if (submissions > 1 && queue.submitted() - queue.done() > 1) ++far_behind;
      if (submissions == 3) source.request_stop();
    };
    CHECK(aftermath_of([&] { call.run({.cancel = source.get_token()}); }) ==
          Aftermath::nothing_written);
    CHECK(submissions == 3);
    CHECK(far_behind == 0);
    const std::size_t slices = recorded(call.executable()).slices;
    REQUIRE(slices > 4);
    // Three slices have run, and are done.
    CHECK(queue.done() == queue.submitted());
    const float first = std::bit_cast<float>(call.read(0)[1]);
    CHECK(first >= 8);
    CHECK(first < 1 << dispatches);

    // A call that has begun to write to what it was given goes on to its end.
    const Call committed(*device, doubling_in_place(1000, dispatches), {counting(1000)}, {}, true);
    submissions = 0;
    source = std::stop_source();
    CHECK_NOTHROW(committed.run({.cancel = source.get_token()}));
    CHECK(source.stop_requested());
    CHECK(is_doubled(committed.read(0), 1 << dispatches));
    // So does one that nobody can stop, without waiting between slices.
    faults->before_submit = nullptr;
    const Call other(*device, doubling_in_place(1000, dispatches), {counting(1000)});
    other.run();
    CHECK(is_doubled(other.read(0), 1 << dispatches));
  }
}

TEST_CASE("a submission that is refused half-way leaves nothing running", "[vulkan][faults]") {
  const auto faults = std::make_shared<Faults>();
  const std::optional<Device> device = software_vulkan({.faults = faults, .slice_seconds = 1e-9});
  if (!device) return;
  const auto idle = [&] {
    const Queue& queue = logical_device(*device)->queue();
    return queue.submitted() > 0 && queue.done() == queue.submitted();
  };
  {
    const Call call(*device, doubling_in_place(1 << 16, 8), {counting(1 << 16)});
    faults->refuse.fail_at(4);
    CHECK_THROWS_AS(call.submit(), OutOfMemory);
    CHECK(idle());
  }
  device->backend().trim();
  CHECK(is_doubled(run_work(*device, doubling(1000), {counting(1000), Words(1000)})[1]));
}

TEST_CASE("an upload that is refused half-way leaves nothing running", "[vulkan][faults]") {
  const auto faults = std::make_shared<Faults>();
  const std::optional<Device> device = software_vulkan(
      {.adjust = [](DeviceFacts& facts) { facts.unified_memory = false; }, .faults = faults});
  if (!device) return;
  Backend& backend = device->backend();
  const std::vector<std::byte> values(std::size_t{40} << 20);
  {
    const auto buffer = backend.allocate(values.size());
    faults->refuse.fail_at(4);
    CHECK_THROWS_AS(backend.upload(*buffer, DType::u8, values), OutOfMemory);
    const Queue& queue = logical_device(*device)->queue();
    CHECK(queue.submitted() == 3);
    CHECK(queue.done() == 3);
  }
  backend.trim();
}

TEST_CASE("a device that makes no progress counts as lost, and is closed without it",
          "[vulkan][faults]") {
  Faulty faulty;
  if (!faulty.device) return;
  {
    const Call call(*faulty.device, doubling(1000), {counting(1000), Words(1000)});
    call.run();
    faulty.faults->silent = true;
    const Event event = call.submit();
    CHECK_FALSE(event.done());
    CHECK(aftermath_of([&] { event.wait(); }) == Aftermath::device_dead);
    CHECK_THAT(message_of<DeviceError>([&] { event.wait(); }), has_text("no progress for 300 s"));
  }
  faulty.device.reset();
  // What was left running ends before the process does.
  const std::optional<Device> other = software_vulkan();
  CHECK(is_doubled(run_work(*other, doubling(1000), {counting(1000), Words(1000)})[1]));
}
