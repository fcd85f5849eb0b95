// All parallelism of the CPU backend. CMake takes one of three implementations (FLUXION_THREADS):
// oneTBB (parallel_tbb.cpp), std::thread (parallel_std.cpp) or none (parallel_none.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace fluxion::cpu_backend {

class ThreadPool {
 public:
  // 0: one per usable core. Where the system refuses some of them, the pool has those that it got.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  int threads() const;

  // Calls body(task) for every task in [0, tasks), on up to threads() threads, and returns when all
  // are done. Which thread runs which task is not defined, so results must not depend on it;
  // scratch memory belongs to the task. May be called from many threads at once; the first
  // exception of a body is rethrown. One task, or a one-thread pool, runs on the caller.
  void parallel_for(std::int64_t tasks, const std::function<void(std::int64_t task)>& body) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fluxion::cpu_backend
