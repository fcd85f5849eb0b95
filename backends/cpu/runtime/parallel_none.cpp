// ThreadPool for systems without threads: every task runs on the caller, in order.
#include <string>

#include "backends/cpu/runtime/parallel.h"
#include "engine/error.h"

namespace fluxion::cpu_backend {

struct ThreadPool::State {};

ThreadPool::ThreadPool(int threads) {
  if (threads < 0)
    throw Error("cpu: the number of threads must be 0 (one per core) or positive, got " +
                std::to_string(threads));
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::threads() const { return 1; }

void ThreadPool::parallel_for(std::int64_t tasks,
                              const std::function<void(std::int64_t)>& body) const {
  for (std::int64_t task = 0; task < tasks; ++task) body(task);
}

}  // namespace fluxion::cpu_backend
