// ThreadPool on std::thread, for builds without TBB and for the thread sanitizer. Each parallel_for
// puts a job in a queue; the caller works on its own job, and idle workers join the oldest one that
// has tasks left. Since every caller can finish its job alone, nested and concurrent calls can't
// deadlock.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backends/cpu/runtime/parallel.h"
#include "engine/error.h"
#include "engine/platform/machine.h"
#include "engine/platform/threads.h"

namespace fluxion::cpu_backend {

namespace {

struct Job {
  Job(const std::function<void(std::int64_t)>& body, std::int64_t tasks)
      : body(body), tasks(tasks) {}
  const std::function<void(std::int64_t)>& body;
  const std::int64_t tasks;
  std::atomic<std::int64_t> next{0};
  int helpers = 0;               // workers inside work(); guarded by the pool's mutex
  std::exception_ptr exception;  // the first; guarded by the pool's mutex

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
    }
    job_waits.notify_all();
    workers.clear();
  }

  void serve() {
    std::unique_lock lock(mutex);
    for (;;) {
      job_waits.wait(lock, [this] { return stopping || !jobs.empty(); });
      if (stopping) return;
      Job* job = jobs.front();
      ++job->helpers;
      lock.unlock();
      job->work(mutex);
      lock.lock();
      remove(job);
      if (--job->helpers == 0) helper_left.notify_all();
    }
  }

  // A job whose tasks are all taken needs no more helpers. Called with the mutex held.
  void remove(Job* job) {
    const auto found = std::find(jobs.begin(), jobs.end(), job);
    if (found != jobs.end()) jobs.erase(found);
  }

  int threads = 1;
  std::mutex mutex;
  std::condition_variable job_waits, helper_left;
  std::deque<Job*> jobs;
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

ThreadPool::~ThreadPool() = default;

int ThreadPool::threads() const { return state_->threads; }

void ThreadPool::parallel_for(std::int64_t tasks,
                              const std::function<void(std::int64_t)>& body) const {
  if (tasks <= 1 || state_->threads == 1) {
    for (std::int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  State& state = *state_;
  Job job(body, tasks);
  {
    std::lock_guard lock(state.mutex);
    state.jobs.push_back(&job);
  }
  const std::int64_t wanted = std::min<std::int64_t>(tasks - 1, state.threads - 1);
  if (wanted == state.threads - 1) {
    state.job_waits.notify_all();
  } else {
    for (std::int64_t i = 0; i < wanted; ++i) state.job_waits.notify_one();
  }
  job.work(state.mutex);
  std::unique_lock lock(state.mutex);
  state.remove(&job);
  state.helper_left.wait(lock, [&] { return job.helpers == 0; });
  if (job.exception) std::rethrow_exception(job.exception);
}

}  // namespace fluxion::cpu_backend
