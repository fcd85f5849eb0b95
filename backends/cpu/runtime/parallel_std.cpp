// ThreadPool on std::thread, for builds without TBB and for the thread sanitizer. Each parallel_for
// puts a job in a queue; the caller works on its own job, and idle workers join the oldest one that
// has tasks left. Since every caller can finish its job alone, nested and concurrent calls can't
// deadlock.
//
// To put a thread to sleep and wake it again takes longer than many kernels do. So who waits stays
// awake for a moment first, giving way to other threads: workers for the next job, callers for the
// last helper, both for the mutex.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backends/cpu/runtime/parallel.h"
#include "engine/error.h"
#include "engine/platform/machine.h"
#include "engine/platform/threads.h"

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace fluxion::cpu_backend {

namespace {

// Which differs in a child of fork().
int process_number() {
#if __has_include(<unistd.h>)
  return static_cast<int>(::getpid());
#else
  return 0;
#endif
}

constexpr std::chrono::microseconds awake{50};

// Whether the condition came true within that time.
template <class Condition>
bool comes_soon(const Condition& condition) {
  if (condition()) return true;
  const auto end = std::chrono::steady_clock::now() + awake;
  do {
    std::this_thread::yield();
    if (condition()) return true;
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

std::unique_lock<std::mutex> locked(std::mutex& mutex) {
  std::unique_lock lock(mutex, std::defer_lock);
  if (!comes_soon([&] { return lock.try_lock(); })) lock.lock();
  return lock;
}

struct Job {
  Job(const std::function<void(std::int64_t)>& body, std::int64_t tasks)
      : body(body), tasks(tasks) {}
  const std::function<void(std::int64_t)>& body;
  const std::int64_t tasks;
  std::atomic<std::int64_t> next{0};
  std::atomic<int> helpers{0};   // workers inside work(); changed with the pool's mutex held
  std::exception_ptr exception;  // the first; guarded by the pool's mutex
  Job* after = nullptr;          // in the pool's queue; guarded by its mutex

  // Takes tasks until none is left.
  void work(std::mutex& mutex) {
    for (;;) {
      const std::int64_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return;
      try {
        body(task);
      } catch (...) {
        next.store(tasks, std::memory_order_relaxed);
        std::lock_guard lock(mutex);
        if (!exception) exception = std::current_exception();
      }
    }
  }
};

// In the order of their calls, without memory of its own: a call must not fail for want of it.
class JobQueue {
 public:
  bool empty() const { return first_ == nullptr; }
  Job* front() const { return first_; }
  void push_back(Job* job) {
    Job** end = &first_;
    while (*end != nullptr) end = &(*end)->after;
    *end = job;
  }
  // Nothing if it is not there.
  void remove(const Job* job) {
    for (Job** each = &first_; *each != nullptr; each = &(*each)->after)
      if (*each == job) {
        *each = job->after;
        return;
      }
  }

 private:
  Job* first_ = nullptr;
};

}  // namespace

struct ThreadPool::State {
  // Where the system refuses a thread, the pool works with those that it has.
  explicit State(int wanted) {
    workers = start_threads(static_cast<std::size_t>(wanted - 1), [this] { serve(); });
    threads = static_cast<int>(workers.size()) + 1;
  }
  ~State() {
    {
      std::lock_guard lock(mutex);
      stopping = true;
      ++calls;
    }
    job_waits.notify_all();
    workers.clear();
  }

  void serve() {
    std::unique_lock lock = locked(mutex);
    for (;;) {
      while (jobs.empty() && !stopping) {
        const std::uint64_t before = calls;
        lock.unlock();
        const bool called = comes_soon([&] { return calls != before; });
        lock = locked(mutex);
        if (called) continue;
        ++asleep;
        job_waits.wait(lock, [this] { return stopping || !jobs.empty(); });
        --asleep;
      }
      if (stopping) return;
      Job* job = jobs.front();
      ++job->helpers;
      lock.unlock();
      job->work(mutex);
      lock = locked(mutex);
      jobs.remove(job);  // its tasks are all taken: it needs no more helpers
      if (--job->helpers == 0) helper_left.notify_all();
    }
  }

  const int process = process_number();
  int threads = 1;
  std::mutex mutex;
  std::condition_variable job_waits, helper_left;
  JobQueue jobs;
  std::atomic<std::uint64_t> calls{0};  // jobs so far, and the call to stop
  std::int64_t asleep = 0;              // workers
  bool stopping = false;
  std::vector<std::jthread> workers;
};

ThreadPool::ThreadPool(int threads) {
  if (threads < 0)
    throw Error("cpu: the number of threads must be 0 (one per core) or positive, got " +
                std::to_string(threads));
  if (threads == 0) threads = usable_cpus();
  state_ = std::make_unique<State>(threads);
}

ThreadPool::~ThreadPool() {
  // A child has none of its parent's threads: it would wait for them for ever.
  if (state_->process != process_number()) static_cast<void>(state_.release());
}

int ThreadPool::threads() const { return state_->threads; }

void ThreadPool::parallel_for(std::int64_t tasks,
                              const std::function<void(std::int64_t)>& body) const {
  if (tasks <= 1 || state_->threads == 1) {
    for (std::int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  State& state = *state_;
  Job job(body, tasks);
  std::unique_lock lock = locked(state.mutex);
  state.jobs.push_back(&job);
  ++state.calls;
  const std::int64_t wanted = std::min(tasks - 1, state.asleep);
  lock.unlock();
  for (std::int64_t i = 0; i < wanted; ++i) state.job_waits.notify_one();
  job.work(state.mutex);
  lock = locked(state.mutex);
  state.jobs.remove(&job);
  if (job.helpers > 0) {
    lock.unlock();
    comes_soon([&] { return job.helpers == 0; });
    lock = locked(state.mutex);
    state.helper_left.wait(lock, [&] { return job.helpers == 0; });
  }
  if (job.exception) std::rethrow_exception(job.exception);
}

}  // namespace fluxion::cpu_backend
