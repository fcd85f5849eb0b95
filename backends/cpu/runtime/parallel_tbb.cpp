// ThreadPool on oneTBB: one arena of fixed concurrency per pool, so that several devices in one
// process keep to their own thread counts.
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/info.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/partitioner.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "backends/cpu/runtime/parallel.h"
#include "engine/error.h"
#include "engine/platform/machine.h"
#include "engine/platform/threads.h"

namespace fluxion::cpu_backend {

namespace {

// How many of `wanted` threads the system lets us have beside this one. TBB starts its workers when
// there is work, and does not survive if one of them can't start another.
int startable(int wanted) {
  std::atomic<bool> over = false;
  const std::vector<std::jthread> threads =
      start_threads(static_cast<std::size_t>(wanted), [&over] { over.wait(false); });
  over = true;
  over.notify_all();
  return static_cast<int>(threads.size());
}

}  // namespace

struct ThreadPool::State {
  // More threads than cores would gain nothing, and TBB prints a warning when asked for them.
  explicit State(int wanted) : State(wanted, std::min(wanted, tbb::info::default_concurrency())) {}
  State(int wanted, int useful) : State(wanted, useful, 1 + startable(useful - 1)) {}
  State(int wanted, int useful, int had) : threads(had < useful ? had : wanted), arena(had) {
    if (had > 1) start(had);
  }

  // Has TBB start its workers while there is room for them. Each waits for the others, but not for
  // long: they may be at work for another pool. TBB keeps them, so a second pool finds them there.
  void start(int workers) {
    static std::atomic<int> started{0};
    if (workers <= started) return;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    std::atomic<int> here{0};
    arena.execute([&] {
      tbb::parallel_for(
          tbb::blocked_range<int>(0, workers, 1),
          [&](const tbb::blocked_range<int>&) {
            ++here;
            while (here < workers && std::chrono::steady_clock::now() < end)
              std::this_thread::yield();
          },
          tbb::simple_partitioner());
    });
    if (here == workers) started = workers;
  }

  const int threads;
  tbb::task_arena arena;
};

ThreadPool::ThreadPool(int threads) {
  if (threads < 0)
    throw Error("cpu: the number of threads must be 0 (one per core) or positive, got " +
                std::to_string(threads));
  state_ = std::make_unique<State>(threads == 0 ? usable_cpus() : threads);
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::threads() const { return state_->threads; }

void ThreadPool::parallel_for(std::int64_t tasks,
                              const std::function<void(std::int64_t)>& body) const {
  if (tasks <= 1 || state_->threads == 1) {
    for (std::int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  state_->arena.execute([&] {
    // Callers make few, large tasks, so each may be stolen alone.
    tbb::parallel_for(
        tbb::blocked_range<std::int64_t>(0, tasks, 1),
        [&](const tbb::blocked_range<std::int64_t>& range) {
          for (std::int64_t task = range.begin(); task != range.end(); ++task) body(task);
        },
        tbb::simple_partitioner());
  });
}

}  // namespace fluxion::cpu_backend
