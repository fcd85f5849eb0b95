// Generators at work: progress, cancelling, memory, threads, and lives in large numbers.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "tests/embed/handles.h"
#include "tests/embed/tiny_samplers.h"
#include "tests/failing_new.h"
#include "tests/faults/faults.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("progress counts the steps of all batches, and can stop them", "[embed]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), tiny_generator(3).bytes);
  struct Seen {
    std::vector<std::int64_t> done;
    std::int64_t all = 0, stop_at = -1;
  } seen;
  fluxion_request request = request_for(0, 0, 5, 2);
  request.progress_data = &seen;
  request.progress = [](void* data, std::int64_t done, std::int64_t all) {
    auto& to = *static_cast<Seen*>(data);
    to.done.push_back(done);
    to.all = all;
    return done == to.stop_at ? 1 : 0;
  };
  drawn(generator.get(), request);
  CHECK(seen.all == 9);
  CHECK(seen.done == std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9});

  seen = {};
  seen.stop_at = 4;
  std::vector<float> samples(80);
  fluxion_error error;
  check_failed(fluxion_generate(generator.get(), &request, samples.data(), 80, &error), error,
               FLUXION_CANCELLED, "step 4 of 9");
  CHECK(seen.done.size() == 4);
}

TEST_CASE("another thread cancels calls that are under way, and later ones", "[embed]") {
  const DeviceHandle device = open_device_handle("cpu:1");
  const GeneratorHandle generator = open_bytes(device.get(), tiny_generator(2).bytes);
  fluxion_cancel* made = nullptr;
  fluxion_error error;
  check_done(fluxion_cancel_create(&made, &error), error);
  const CancelHandle cancel(made);
  // Years of work, unless it is cancelled.
  constexpr std::int64_t count = 1 << 22;
  fluxion_request request = request_for(0, 0, count, 1);
  request.cancel = cancel.get();
  std::vector<float> samples(static_cast<std::size_t>(count) * 16);
  struct Seen {
    std::atomic<bool> begun{false};
  } seen;
  request.progress_data = &seen;
  request.progress = [](void* data, std::int64_t, std::int64_t) {
    static_cast<Seen*>(data)->begun = true;
    return 0;
  };
  std::thread other([&] {
    while (!seen.begun) std::this_thread::yield();
    fluxion_cancel_request(cancel.get());
  });
  const fluxion_status status =
      fluxion_generate(generator.get(), &request, samples.data(), samples.size(), &error);
  other.join();
  check_failed(status, error, FLUXION_CANCELLED, "");
  CHECK(samples.back() == 0);

  seen.begun = false;
  CHECK(fluxion_generate(generator.get(), &request, samples.data(), samples.size(), &error) ==
        FLUXION_CANCELLED);
  CHECK(!seen.begun);
  // So does one that would draw nothing.
  request.count = 0;
  CHECK(fluxion_generate(generator.get(), &request, nullptr, 0, &error) == FLUXION_CANCELLED);
  CHECK(fluxion_generate_pixels(generator.get(), &request, nullptr, 0, &error) ==
        FLUXION_CANCELLED);
  CHECK(fluxion_noise(generator.get(), &request, nullptr, 0, &error) == FLUXION_CANCELLED);
  // What was cancelled can be asked for again.
  request.cancel = nullptr;
  request.count = 2;
  CHECK(drawn(generator.get(), request) == drawn(generator.get(), request_for(0, 0, 2, 2)));
}

TEST_CASE("memory is counted, held within the budget, and given back", "[embed][memory]") {
  const std::vector<std::byte> bytes = tiny_generator(2, {24, 24, 1}).bytes;
  std::uint64_t for_small = 0, for_large = 0, weights = 0;
  std::vector<float> expected;
  {
    const DeviceHandle device = open_device_handle("cpu:1");
    const GeneratorHandle generator = open_bytes(device.get(), bytes);
    weights = info_of(generator.get()).weights;
    CHECK(memory_of(device.get()).in_use >= weights);
    CHECK(memory_of(device.get()).budget == 0);
    CHECK(fluxion_generator_prepare(generator.get(), 4, &for_small, nullptr) == FLUXION_OK);
    CHECK(fluxion_generator_prepare(generator.get(), 4096, &for_large, nullptr) == FLUXION_OK);
    CHECK(for_small > weights);
    CHECK(for_large > for_small);
    expected = drawn(generator.get(), request_for(1, 0, 12, 4));
    CHECK(memory_of(device.get()).peak >= memory_of(device.get()).in_use);
    CHECK(fluxion_device_trim(device.get(), nullptr) == FLUXION_OK);
    CHECK(memory_of(device.get()).kept == 0);
  }
  const DeviceHandle device = open_device_handle("cpu:1", for_small);
  fluxion_error error;
  {
    const GeneratorHandle generator = open_bytes(device.get(), bytes);
    CHECK(drawn(generator.get(), request_for(1, 0, 12, 4)) == expected);
    CHECK(memory_of(device.get()).peak <= for_small);
    const fluxion_request large = request_for(1, 0, 4096, 4096);
    std::vector<float> samples(4096 * 576);
    check_failed(fluxion_generate(generator.get(), &large, samples.data(), samples.size(), &error),
                 error, FLUXION_OUT_OF_MEMORY, "budget");
    // What was refused has taken nothing.
    CHECK(drawn(generator.get(), request_for(1, 0, 12, 4)) == expected);
    CHECK(memory_of(device.get()).peak <= for_small);
    fluxion_generator* second = nullptr;
    check_failed(
        fluxion_generator_open_memory(device.get(), bytes.data(), bytes.size(), &second, &error),
        error, FLUXION_OUT_OF_MEMORY, "budget");
    CHECK(second == nullptr);
  }
  CHECK(memory_of(device.get()).in_use == 0);
  CHECK(memory_of(device.get()).budget == for_small);
}

TEST_CASE("steps that draw noise keep to what prepare says", "[embed][memory]") {
  for (const std::int64_t width : {3, 4096}) {
    const std::vector<std::byte> bytes = restless_sampler(width);
    for (const std::int64_t batch : {1, 16, 32, 200}) {
      CAPTURE(width, batch);
      std::uint64_t needed = 0;
      std::vector<float> expected;
      const fluxion_request request = request_for(1, 60, batch + 1, batch);
      {
        const DeviceHandle device = open_device_handle("cpu:1");
        const GeneratorHandle generator = open_bytes(device.get(), bytes);
        CHECK(fluxion_generator_prepare(generator.get(), batch, &needed, nullptr) == FLUXION_OK);
        expected = drawn(generator.get(), request);
      }
      const DeviceHandle device = open_device_handle("cpu:1", needed);
      CHECK(drawn(open_bytes(device.get(), bytes).get(), request) == expected);
    }
  }
}

TEST_CASE("eight threads draw from one generator what one thread draws", "[embed][threads]") {
  const DeviceHandle device = open_device_handle("cpu:2");
  const GeneratorHandle images = open_bytes(device.get(), tiny_generator(2).bytes),
                        points = open_bytes(device.get(), restless_sampler());
  const std::vector<float> expected = drawn(images.get(), request_for(9, 0, 48, 3)),
                           expected_points = drawn(points.get(), request_for(9, 0, 48, 3));
  // New handles, so that the threads plan, too.
  const GeneratorHandle shared = open_bytes(device.get(), tiny_generator(2).bytes),
                        shared_points = open_bytes(device.get(), restless_sampler());
  std::vector<float> found(expected.size()), found_points(expected_points.size());
  std::atomic<int> failures{0};
  {
    std::vector<std::jthread> threads;
    for (std::int64_t t = 0; t < 8; ++t)
      threads.emplace_back([&, t] {
        const fluxion_request request = request_for(9, 6 * t, 6, 3);
        for (int round = 0; round < 5; ++round) {
          if (fluxion_generate(shared.get(), &request, found.data() + 6 * t * 16, 6 * 16,
                               nullptr) != FLUXION_OK)
            ++failures;
          if (fluxion_generate(shared_points.get(), &request, found_points.data() + 6 * t * 3,
                               6 * 3, nullptr) != FLUXION_OK)
            ++failures;
        }
      });
  }
  CHECK(failures == 0);
  CHECK(found == expected);
  CHECK(found_points == expected_points);
}

#if defined(__unix__)

TEST_CASE("a child of fork() can close what its parent has opened", "[embed][threads]") {
  const std::vector<std::byte> bytes = tiny_generator(2).bytes;
  DeviceHandle device = open_device_handle("cpu:3");
  GeneratorHandle generator = open_bytes(device.get(), bytes);
  const fluxion_request request = request_for(3, 0, 4, 2);
  const std::vector<float> expected = drawn(generator.get(), request);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(60);
    generator.reset();
    device.reset();
    ::_exit(0);
  }
  int ending = 0;
  REQUIRE(::waitpid(child, &ending, 0) == child);
  CHECK(ending == 0);
  CHECK(drawn(generator.get(), request) == expected);
}

#endif

namespace {

// Opens, draws and closes.
void live_once(const std::vector<std::byte>& bytes) {
  fluxion_device* device = nullptr;
  fluxion_generator* generator = nullptr;
  std::vector<float> samples(32);
  const fluxion_request request = request_for(0, 0, 2, 2);
  const bool done =
      fluxion_device_open("cpu:2", nullptr, &device, nullptr) == FLUXION_OK &&
      fluxion_generator_open_memory(device, bytes.data(), bytes.size(), &generator, nullptr) ==
          FLUXION_OK &&
      fluxion_generate(generator, &request, samples.data(), samples.size(), nullptr) == FLUXION_OK;
  fluxion_generator_close(generator);
  fluxion_device_close(device);
  if (!done) FAIL("a life went wrong");
}

std::size_t live_bytes() {
#if defined(__GLIBC__)
  if (!sanitized) return mallinfo2().uordblks;
#endif
  return 0;
}

void check_lives(int count) {
  const std::vector<std::byte> bytes = tiny_generator(2).bytes;
  for (int i = 0; i < 20; ++i) live_once(bytes);
  const std::size_t before = live_bytes();
  for (int i = 0; i < count; ++i) live_once(bytes);
  CHECK(live_bytes() <= before + 4096);
}

}  // namespace

TEST_CASE("200 lives leave no memory behind", "[embed][memory]") { check_lives(200); }
TEST_CASE("10,000 lives leave no memory behind", "[.][embed][memory]") { check_lives(10000); }

namespace {

// Lets allocations of `call` fail, one in each try, until none is left: every one, or with `sparse`
// the first few and then ever fewer. check(status) is called after each try.
template <class Call, class Check>
long fail_each(bool sparse, const Call& call, const Check& check) {
  long failures = 0;
  for (long allowed = 0;; allowed += sparse ? 1 + allowed / 32 : 1) {
    CAPTURE(allowed);
    fluxion_status status = FLUXION_OK;
    fluxion_error error;
    bool failed = false;
    {
      const FailingAllocation failing(allowed);
      status = call(&error);
      failed = failing.failed();
    }
    // Some failures are made up for: memory that is kept is given back, and it is tried again.
    if (status != FLUXION_OK) {
      ++failures;
      INFO(error.message);
      CHECK(failed);
      CHECK(status == FLUXION_OUT_OF_MEMORY);
    }
    check(status);
    if (!failed) return failures;
  }
}

void fail_allocations(bool sparse) {
  const std::vector<std::byte> bytes = tiny_generator(2).bytes;
  CHECK(fail_each(
            sparse,
            [&](fluxion_error* error) {
              fluxion_device* device = nullptr;
              const fluxion_status status = fluxion_device_open("cpu:1", nullptr, &device, error);
              fluxion_device_close(device);
              return status;
            },
            [](fluxion_status) {}) > 3);

  const DeviceHandle device = open_device_handle("cpu:1");
  CHECK(fail_each(
            sparse,
            [&](fluxion_error* error) {
              fluxion_generator* made = nullptr;
              const fluxion_status status = fluxion_generator_open_memory(
                  device.get(), bytes.data(), bytes.size(), &made, error);
              fluxion_generator_close(made);
              return status;
            },
            [&](fluxion_status) { CHECK(memory_of(device.get()).in_use == 0); }) > 50);

  const fluxion_request request = request_for(4, 0, 3, 2);
  const std::vector<float> expected = drawn(open_bytes(device.get(), bytes).get(), request);
  std::vector<float> samples(expected.size());
  const auto generate = [&](const fluxion_generator* generator, fluxion_error* error) {
    std::fill(samples.begin(), samples.end(), 0.0f);
    return fluxion_generate(generator, &request, samples.data(), samples.size(), error);
  };
  SECTION("first calls, which plan") {
    DeviceHandle fresh;
    GeneratorHandle generator;
    const auto renew = [&] {
      generator.reset();
      fresh = open_device_handle("cpu:1");
      generator = open_bytes(fresh.get(), bytes);
    };
    renew();
    CHECK(fail_each(
              sparse, [&](fluxion_error* error) { return generate(generator.get(), error); },
              [&](fluxion_status status) {
                CHECK((status != FLUXION_OK || samples == expected));
                CHECK(drawn(generator.get(), request) == expected);
                renew();
              }) > 50);
  }
  SECTION("later calls") {
    const GeneratorHandle generator = open_bytes(device.get(), bytes);
    drawn(generator.get(), request);
    const std::uint64_t before = memory_of(device.get()).in_use;
    CHECK(fail_each(
              sparse, [&](fluxion_error* error) { return generate(generator.get(), error); },
              [&](fluxion_status status) {
                CHECK((status != FLUXION_OK || samples == expected));
                CHECK(memory_of(device.get()).in_use == before);
              }) > 50);
    CHECK(drawn(generator.get(), request) == expected);
  }
}

}  // namespace

TEST_CASE("whichever allocation fails, it is a status, and nothing is left behind",
          "[embed][memory]") {
  fail_allocations(true);
}
TEST_CASE("every allocation failed once is a status, and nothing is left behind",
          "[.][embed][memory]") {
  fail_allocations(false);
}
