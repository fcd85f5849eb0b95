// Vulkan: recordings. What waits for what, what is recorded once, and times.
#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "backends/cpu/cpu.h"
#include "backends/vulkan/hazards.h"
#include "backends/vulkan/program.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "tests/catch.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/runtime/small_kernels.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

Place at(std::uint64_t block, std::int64_t offset, std::int64_t bytes) {
  Place place;
  place.block = block;
  place.offset = offset;
  place.bytes = bytes;
  return place;
}

}  // namespace

TEST_CASE("a dispatch waits for what it reads or writes, and for nothing else",
          "[vulkan][recording]") {
  Hazards hazards;
  hazards.note(at(1, 0, 256), true, false);
  hazards.note(at(1, 512, 256), false, true);
  const bool reads = false, writes = true;
  CHECK_FALSE(hazards.conflicts(at(1, 0, 256), reads));     // read after read
  CHECK(hazards.conflicts(at(1, 0, 256), writes));          // write after read
  CHECK(hazards.conflicts(at(1, 512, 4), reads));           // read after write
  CHECK(hazards.conflicts(at(1, 764, 512), writes));        // write after write, by one word
  CHECK_FALSE(hazards.conflicts(at(1, 256, 256), writes));  // beside both
  CHECK_FALSE(hazards.conflicts(at(1, 768, 256), writes));
  CHECK_FALSE(hazards.conflicts(at(2, 0, 1024), writes));  // another block
  hazards.barrier();
  CHECK_FALSE(hazards.conflicts(at(1, 0, 1024), writes));
}

TEST_CASE("dispatches that share nothing have no barrier between them", "[vulkan][recording]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  KernelWork apart = doubling(1000);
  apart.dispatches.push_back(apart.dispatches[0]);
  apart.dispatches[1].bindings[1].number = 2;
  const Call call(*device, apart, {counting(1000), Words(1000), Words(1000)});
  call.run();
  CHECK(recorded(call.executable()).dispatches == 2);
  CHECK(recorded(call.executable()).barriers == 0);
  const Call chain(*device, doubling_in_place(1000, 5), {counting(1000)});
  chain.run();
  CHECK(recorded(chain.executable()).barriers == 4);
  CHECK(is_doubled(chain.read(0), 32));
}

TEST_CASE("a loop whose batches are new each time records a few times, not each time",
          "[vulkan][recording]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  const auto f = compile([](const Tensor& x, const Tensor& batch) { return x + batch * 2.0; },
                         {.donate = {0}});
  const LogicalDevice& logical = *logical_device(*device);
  Tensor x = zeros({100}, DType::f32, *device);
  eval(x);
  const std::size_t before = logical.recordings();
  for (int step = 0; step < 40; ++step)
    x = f(x, Tensor::from(std::vector<float>(100, 1), {100}, *device));
  CHECK(x.to_host<float>() == std::vector<float>(100, 80));
  CHECK(logical.recordings() - before <= 8);
}

TEST_CASE("work that may take long is submitted in slices", "[vulkan][recording]") {
  const std::optional<Device> device = software_vulkan({.slice_seconds = 1e-4});
  if (!device) return;
  const Call call(*device, doubling_in_place(1000, 20), {counting(1000)});
  call.run();
  CHECK(recorded(call.executable()).slices > 2);
  CHECK(is_doubled(call.read(0), 1 << 20));
}

TEST_CASE("a dispatch that takes long is divided", "[vulkan][recording]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  KernelWork work = doubling_in_place(64 * 100, 3);
  work.dispatches[1].flops = 9.5e8;  // a second, for a software device
  const Call call(*device, work, {counting(64 * 100)});
  call.run();
  CHECK(recorded(call.executable()).dispatches == 12);
  CHECK(recorded(call.executable()).slices >= 10);
  CHECK(is_doubled(call.read(0), 8));
  // The same for a whole product, whose tiles lie on more than one axis.
  const std::optional<Device> slow = software_vulkan({.slice_seconds = 1e-4});
  std::vector<float> values;
  for (int i = 0; i < 300 * 300; ++i) values.push_back(static_cast<float>(i % 17 - 8));
  const auto square = [&](const Device& on) {
    const Tensor x = Tensor::from(values, {300, 300}, on);
    return matmul(x, x).to_host<float>();
  };
  CHECK(square(*slow) == square(cpu()));
}

TEST_CASE("a dispatch has few parts, and is not recorded anew for what can't be shorter",
          "[vulkan][recording]") {
  const std::optional<Device> device = software_vulkan({.slice_seconds = 1e-7});
  if (!device) return;
  KernelWork work = doubling(64 * 3);  // three workgroups
  work.dispatches[0].flops = 1e9;
  const Call few(*device, work, {counting(64 * 3), Words(64 * 3)});
  const LogicalDevice& logical = *logical_device(*device);
  few.run();
  CHECK(recorded(few.executable()).slices == 3);
  const std::size_t before = logical.recordings();
  for (int i = 0; i < 6; ++i) few.run();
  CHECK(logical.recordings() == before);
  work = doubling(64 * 1000);
  work.dispatches[0].flops = 1e9;
  const Call many(*device, work, {counting(64 * 1000), Words(64 * 1000)});
  many.run();
  CHECK(recorded(many.executable()).slices == 64);
  CHECK(is_doubled(many.read(1)));
}

TEST_CASE("a device seems slow for as long as it is", "[vulkan][recording]") {
  const double slice = 0.1, estimate = 0.1;
  CHECK(slowness_shown(0.2, estimate, 1, slice) == 2.0);
  CHECK(slowness_shown(0.005, 0.0005, 40, slice) == Approx(10));  // short, but faster
  CHECK_FALSE(slowness_shown(0.02, 2e-5, 1, slice));              // short, and slower
  CHECK_FALSE(slowness_shown(1e-5, 1e-6, 40, slice));             // too short to say anything
  CHECK_FALSE(slowness_shown(1.8e10, estimate, 1, slice));        // stamps out of order
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  LogicalDevice& logical = *logical_device(*device);
  logical.note_slowness(40);
  const double high = logical.slowness();
  for (int i = 0; i < 40; ++i) logical.note_slowness(1);
  CHECK(high > 10);
  CHECK(logical.slowness() < 2);
}

TEST_CASE("temporaries may take more than a driver allocates at once", "[vulkan][memory]") {
  // z0, .., z11 of 1 MiB are all used again, in reverse.
  const auto there_and_back = compile([](Tensor x) {
    std::vector<Tensor> z;
    for (int i = 0; i < 12; ++i) {
      z.push_back(x);
      x = cumsum(x, 1) * (1.0 / 256);
    }
    for (; !z.empty(); z.pop_back()) x = cumsum(x * z.back(), 0) * (1.0 / 256) + z.back();
    return x;
  });
  std::vector<float> values;
  for (int i = 0; i < 512 * 512; ++i) values.push_back(static_cast<float>(i * 7919 % 1000) / 1000);
  const auto result = [&](const Device& on) {
    return there_and_back(Tensor::from(values, {512, 512}, on)).to_host<float>();
  };
  const std::vector<float> expected = result(cpu());
  for (const bool guarded : {false, true}) {
    DeviceOptions options;
    options.adjust = [](DeviceFacts& facts) { facts.max_allocation_bytes = 5 << 20; };
    std::string written;
    if (guarded) options.guards = [&](std::string_view what) { written += what; };
    const std::optional<Device> device = software_vulkan(options);
    if (!device) return;
    const std::vector<float> found = result(*device);
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); i += 101) CHECK(found[i] == Approx(expected[i]));
    CHECK(written.empty());
    CHECK_THROWS_AS(eval(zeros({(6 << 20) / 4}, DType::f32, *device)), Error);
  }
}

TEST_CASE("uploads wait for earlier ones rather than take much memory", "[vulkan][memory]") {
  const std::optional<Device> device =
      software_vulkan({.adjust = [](DeviceFacts& facts) { facts.unified_memory = false; }});
  if (!device) return;
  Backend& backend = device->backend();
  constexpr std::size_t mebibyte = std::size_t{1} << 20, bytes = 192 * mebibyte;
  const auto buffer = backend.allocate(bytes);
  std::vector<std::byte> values(bytes, std::byte{7}), back(bytes);
  backend.upload(*buffer, DType::u8, values);
  CHECK(logical_device(*device)->memory().taken_bytes() <= bytes + (64 + 16) * mebibyte);
  backend.trim();
  backend.download(*buffer, DType::u8, back);
  CHECK(back == values);
}

TEST_CASE("more submissions than a queue holds wait for the first ones", "[vulkan][recording]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  const Call call(*device, doubling_in_place(64, 1), {Words(64)});
  Event last;
  for (std::size_t i = 0; i < 2 * Queue::most_in_flight; ++i) last = call.submit();
  last.wait();
  CHECK(call.read(0) == Words(64));
}

TEST_CASE("each call has its own scalars, though many are in flight", "[vulkan][recording]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  const KernelWork work = scalars_to(0);
  std::vector<std::unique_ptr<Call>> calls;
  const std::vector<double> values = {1.5, -3e9, 0, 4294967295.0, std::nan("")};
  for (const double value : values)
    calls.push_back(std::make_unique<Call>(*device, work, std::vector<Words>{Words(4)},
                                           std::vector<double>{value}));
  std::vector<Event> events;
  for (const auto& call : calls) events.push_back(call->submit());
  for (const Event& event : events) event.wait();
  const auto words = [](float f32, std::int32_t i32, std::uint32_t u32, std::uint32_t boolean) {
    return Words{std::bit_cast<std::uint32_t>(f32), static_cast<std::uint32_t>(i32), u32, boolean};
  };
  CHECK(calls[0]->read(0) == words(1.5f, 1, 1, 1));
  CHECK(calls[1]->read(0) == words(-3e9f, std::numeric_limits<std::int32_t>::min(), 0, 1));
  CHECK(calls[2]->read(0) == words(0, 0, 0, 0));
  CHECK(calls[3]->read(0) ==
        words(4294967296.0f, std::numeric_limits<std::int32_t>::max(), 4294967295u, 1));
  const Words nan = calls[4]->read(0);
  CHECK(std::isnan(std::bit_cast<float>(nan[0])));
  CHECK((nan[1] == 0 && nan[2] == 0 && nan[3] == 1));
}

TEST_CASE("kernel times add up to less than the call took", "[vulkan][recording]") {
  for (const bool stamps : {true, false}) {
    const std::optional<Device> device = software_vulkan({.adjust = [=](DeviceFacts& facts) {
      if (!stamps) facts.timestamp_bits = 0;
    }});
    if (!device) return;
    const Call call(*device, doubling_in_place(100000, 3), {counting(100000)});
    std::vector<double> seconds;
    RunOptions options;
    options.kernel_seconds = &seconds;
    const auto start = std::chrono::steady_clock::now();
    call.run(options);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    REQUIRE(seconds.size() == 1);
    CHECK(seconds[0] > 0);
    CHECK(seconds[0] <= took.count());
  }
}

TEST_CASE("threads submit different programs to one device at once", "[vulkan][recording]") {
  for (const bool timeline : {true, false}) {
    const std::optional<Device> device = software_vulkan(
        {.adjust = [=](DeviceFacts& facts) { facts.timeline_semaphore = timeline; }});
    if (!device) return;
    constexpr int threads = 4;
    std::vector<std::unique_ptr<Call>> calls;
    for (int i = 0; i < threads; ++i)
      calls.push_back(std::make_unique<Call>(*device, doubling_in_place(1000, 1 + i),
                                             std::vector<Words>{counting(1000)}));
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i)
      workers.emplace_back([&, i] {
        for (int call = 0; call < 3; ++call) calls[static_cast<std::size_t>(i)]->run();
      });
    for (std::thread& worker : workers) worker.join();
    for (int i = 0; i < threads; ++i)
      CHECK(is_doubled(calls[static_cast<std::size_t>(i)]->read(0),
                       static_cast<float>(1 << (3 * (1 + i)))));
  }
}

TEST_CASE("memory that the host can't see is copied, in pieces if it is large",
          "[vulkan][recording]") {
  const std::optional<Device> device =
      software_vulkan({.adjust = [](DeviceFacts& facts) { facts.unified_memory = false; }});
  if (!device) return;
  const std::uint32_t count = 5u << 20;  // 20 MiB, more than one piece
  const auto buffer = device->backend().allocate(std::size_t{4} * count);
  const Words words = counting(count);
  device->backend().upload(*buffer, DType::u32, std::as_bytes(std::span(words)));
  Words read(count);
  device->backend().download(*buffer, DType::u32, std::as_writable_bytes(std::span(read)));
  CHECK(read == words);
}
