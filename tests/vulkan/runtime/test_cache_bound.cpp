// Vulkan: what is kept of programs that were compiled and dropped has a bound.
#include <atomic>
#include <filesystem>
#include <thread>
#include <vector>

#include "backends/vulkan/backend.h"
#include "backends/vulkan/pipeline_cache.h"
#include "backends/vulkan/pipelines.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"
#include "tests/vulkan/run_work.h"
#include "tests/vulkan/runtime/pretended_driver.h"
#include "tests/vulkan/runtime/small_kernels.h"

using namespace fluxion;
using namespace fluxion::testing;
using namespace fluxion::vulkan_backend;

namespace {

constexpr std::size_t room_for_100 =
    PretendedDriver::header_bytes + 100 * PretendedDriver::pipeline_bytes;

std::shared_ptr<const Pipeline> make_one(Pipelines& pipelines, std::uint32_t number) {
  const Shader shader = numbered_shader(number);
  const Shader* const list[] = {&shader};
  return pipelines.make(list).front();
}

// A device's pipelines, from a file and back to it.
void make_in_turn(const Pretended& driver, const CacheChoice& cache,
                  std::initializer_list<std::uint32_t> numbers, bool warm, int compiled) {
  const int before = driver.state().compiled;
  Pipelines pipelines(nullptr, driver.call(), driver.facts(), cache, nullptr);
  CHECK(pipelines.counts().warm == warm);
  for (const std::uint32_t number : numbers) make_one(pipelines, number);
  CHECK(driver.state().compiled - before == compiled);
}

}  // namespace

TEST_CASE("programs that are compiled and dropped leave nothing but a bounded cache",
          "[vulkan][cache]") {
  const ScratchFolder folder;
  const Pretended driver;
  {
    Pipelines pipelines(nullptr, driver.call(), driver.facts(), {folder.path(), room_for_100},
                        nullptr);
    const auto kept = make_one(pipelines, 7000);
    for (std::uint32_t i = 0; i < 1600; ++i) make_one(pipelines, i);
    const PretendedDriver state = driver.state();
    CHECK(state.compiled == 1601);
    CHECK(state.largest_cache <= room_for_100 + PretendedDriver::pipeline_bytes);
    CHECK(state.caches == 1);
    CHECK(state.pipelines == 1);
    CHECK(state.modules == 0);
    CHECK(state.layouts == 6);  // two for each number of bindings
    CHECK(pipelines.counts().alive == 1);
    // What is used stays what it is, and is not made twice.
    CHECK(make_one(pipelines, 7000) == kept);
    CHECK(driver.state().compiled == 1601);
  }
  const PretendedDriver state = driver.state();
  CHECK(state.caches == 0);
  CHECK(state.pipelines == 0);
  CHECK(state.layouts == 0);
  const auto file = cache_file(folder.path(), driver.facts());
  REQUIRE(std::filesystem::exists(file));
  CHECK(std::filesystem::file_size(file) <= room_for_100 + 64);
}

TEST_CASE("a driver that does not say what its cache holds has a bound, too", "[vulkan][cache]") {
  Pretended driver;
  driver.hide_data();
  Pipelines pipelines(nullptr, driver.call(), driver.facts(), {{}, room_for_100}, nullptr);
  for (std::uint32_t i = 0; i < 1600; ++i) make_one(pipelines, i);
  CHECK(driver.state().largest_cache <= room_for_100 + PretendedDriver::pipeline_bytes);
  CHECK(driver.state().largest_cache >= room_for_100 / 2);
}

TEST_CASE("a cache that is full is replaced while other threads make pipelines with it",
          "[vulkan][cache]") {
  const Pretended driver;
  constexpr std::uint32_t threads = 4, each = 300;
  {
    Pipelines pipelines(nullptr, driver.call(), driver.facts(),
                        {{}, PretendedDriver::header_bytes + PretendedDriver::pipeline_bytes},
                        nullptr);
    std::vector<std::thread> makers;
    std::atomic<int> empty{0};
    for (std::uint32_t t = 0; t < threads; ++t)
      makers.emplace_back([&, t] {
        for (std::uint32_t i = 0; i < each; ++i)
          empty += make_one(pipelines, t * each + i)->handle() == VK_NULL_HANDLE;
      });
    for (std::thread& maker : makers) maker.join();
    CHECK(empty == 0);
    CHECK(pipelines.counts().alive == 0);
  }
  const PretendedDriver state = driver.state();
  CHECK(state.misused == 0);
  CHECK(state.compiled == threads * each);
  CHECK(state.most_caches > 1);
  CHECK(state.caches == 0);
  CHECK(state.pipelines == 0);
}

TEST_CASE("a cache's file holds what was made before, and begins anew when that is too much",
          "[vulkan][cache]") {
  const ScratchFolder folder;
  const Pretended driver;
  const CacheChoice roomy{folder.path(), room_for_100},
      tight{folder.path(), PretendedDriver::header_bytes + 2 * PretendedDriver::pipeline_bytes};
  make_in_turn(driver, roomy, {1, 2}, false, 2);
  make_in_turn(driver, roomy, {1, 2, 3}, true, 1);
  make_in_turn(driver, roomy, {1, 2, 3}, true, 0);
  // Three are too many for two: they are as good as none, and replaced.
  make_in_turn(driver, tight, {3}, false, 1);
  make_in_turn(driver, tight, {3, 2}, true, 1);
  make_in_turn(driver, tight, {2, 3}, true, 0);
  CHECK(std::filesystem::file_size(cache_file(folder.path(), driver.facts())) ==
        64 + tight.most_bytes);
}

TEST_CASE("a cache goes on, though too large, while the driver has no memory for another",
          "[vulkan][cache]") {
  Pretended driver;
  Pipelines pipelines(nullptr, driver.call(), driver.facts(), {{}, room_for_100}, nullptr);
  driver.refuse_caches(true);
  for (std::uint32_t i = 0; i < 150; ++i) CHECK(make_one(pipelines, i)->handle());
  CHECK(driver.state().caches == 1);
  driver.refuse_caches(false);
  make_one(pipelines, 150);
  make_one(pipelines, 151);
  CHECK(driver.state().caches == 1);
  const int before = driver.state().compiled;
  make_one(pipelines, 0);
  CHECK(driver.state().compiled == before + 1);  // the cache that knew it is gone
}

TEST_CASE("programs that are dropped and never run are freed where the driver waits for work",
          "[vulkan][cache]") {
  for (const bool waits : {true, false}) {
    DeviceOptions options;
    options.adjust = [=](DeviceFacts& facts) { facts.frees_when_submitting = waits; };
    const std::optional<Device> device = software_vulkan(options);
    if (!device) return;
    LogicalDevice& logical = *logical_device(*device);
    const auto drop = [&](std::uint32_t programs) {
      for (std::uint32_t i = 1; i <= programs; ++i)
        Call(*device, doubling(i), {Words(i), Words(i)});
    };
    drop(1);  // its buffers are written to in place
    const std::uint64_t before = logical.queue().submitted();
    drop(200);
    CHECK(logical.queue().submitted() - before == (waits ? 3 : 0));
    CHECK(logical.pipelines().counts().alive == 0);
    logical.queue().wait(logical.queue().submitted());
  }
}

TEST_CASE("a device whose options leave its cache no bytes keeps none", "[vulkan][cache]") {
  for (const std::size_t budget : {std::size_t{0}, std::size_t{1} << 20}) {
    const ScratchFolder folder;
    for (const bool again : {false, true}) {
      DeviceOptions options;
      options.choice.cache = folder.path();
      options.choice.cache_budget = budget;
      const std::optional<Device> device = software_vulkan(options);
      if (!device) return;
      CHECK(logical_device(*device)->pipelines().counts().warm == (again && budget > 0));
      CHECK(is_doubled(run_work(*device, doubling(50), {counting(50), Words(50)})[1]));
    }
    CHECK(folder.files() == (budget > 0 ? 1 : 0));
  }
}

TEST_CASE("a device forgets the kernels of programs that are dropped", "[vulkan][cache]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  Pipelines& pipelines = logical_device(*device)->pipelines();
  for (std::uint32_t count = 1; count <= 40; ++count) {
    const KernelWork work = doubling(count);
    CHECK(is_doubled(run_work(*device, work, {counting(count), Words(count)})[1]));
  }
  device->backend().in_use();  // collects what the last work held
  CHECK(pipelines.counts().made == 40);
  CHECK(pipelines.counts().alive == 0);
}
