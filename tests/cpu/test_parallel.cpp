// The thread pool: every task once, nested and concurrent calls, exceptions.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <thread>
#include <vector>

#include "backends/cpu/runtime/parallel.h"
#include "engine/error.h"
#include "tests/catch.h"

namespace {

using namespace fluxion;
using namespace fluxion::cpu_backend;

}  // namespace

TEST_CASE("parallel_for runs every task exactly once", "[cpu][parallel]") {
  for (const int threads : {1, 2, 3, 8}) {
    const ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (const std::int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
      pool.parallel_for(tasks, [&](std::int64_t task) { ++runs[static_cast<std::size_t>(task)]; });
      for (const auto& count : runs) REQUIRE(count == 1);
    }
  }
}

TEST_CASE("parallel_for may be called inside a task and from many threads at once",
          "[cpu][parallel]") {
  const ThreadPool pool(3);
  std::atomic<std::int64_t> sum{0};
  const auto work = [&] {
    for (int repeat = 0; repeat < 20; ++repeat)
      pool.parallel_for(10, [&](std::int64_t outer) {
        pool.parallel_for(10, [&](std::int64_t inner) { sum += 10 * outer + inner; });
      });
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) callers.emplace_back(work);
  for (std::thread& caller : callers) caller.join();
  CHECK(sum == 4 * 20 * 4950);
}

TEST_CASE("parallel_for rethrows a task's exception and stays usable", "[cpu][parallel]") {
  for (const int threads : {1, 4}) {
    const ThreadPool pool(threads);
    CHECK_THROWS_WITH(pool.parallel_for(100,
                                        [](std::int64_t task) {
                                          if (task == 37) throw Error("task 37");
                                        }),
                      "task 37");
    std::atomic<int> runs{0};
    pool.parallel_for(50, [&](std::int64_t) { ++runs; });
    CHECK(runs == 50);
  }
}

TEST_CASE("a negative number of threads is refused, zero is one per core", "[cpu][parallel]") {
  CHECK_THROWS_AS(ThreadPool(-1), Error);
  CHECK(ThreadPool(0).threads() >= 1);
}

// Run by the test below, in a process of its own: limits stay, and are not for the other tests.
TEST_CASE("a process without further threads still computes", "[.][cpu][parallel]") {
  const rlimit none{0, 0};
  REQUIRE(setrlimit(RLIMIT_NPROC, &none) == 0);
  if (getuid() == 0) REQUIRE(setuid(65534) == 0);  // the limit does not hold for root
  REQUIRE_THROWS_AS(std::thread([] {}), std::system_error);
  for (const int threads : {1, 2, 8}) {
    const ThreadPool pool(threads);
    CHECK(pool.threads() == 1);
    std::atomic<int> runs{0};
    for (int repeat = 0; repeat < 10; ++repeat)
      pool.parallel_for(100, [&](std::int64_t) { ++runs; });
    CHECK(runs == 1000);
  }
}

TEST_CASE("a pool works with the threads that the system lets it have", "[cpu][parallel]") {
  const pid_t child = fork();
  if (child == 0) {
    // Looking for leaks takes a thread.
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    execl("/proc/self/exe", "fluxion-tests", "a process without further threads still computes",
          static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("workers that still wait awake and those that sleep take every task", "[cpu][parallel]") {
  const ThreadPool pool(3);
  std::atomic<std::int64_t> done{0};
  constexpr std::int64_t calls = 600, tasks = 5;
  const auto call = [&] {
    for (std::int64_t i = 0; i < calls; ++i) {
      pool.parallel_for(tasks, [&](std::int64_t) { ++done; });
      // Longer than a worker stays awake.
      if (i % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  };
  {
    const std::jthread other(call);
    call();
  }
  CHECK(done == 2 * calls * tasks);
}
