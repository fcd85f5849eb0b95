#include "models/evaluation/blocks.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/platform/machine.h"

namespace fluxion {

void parallel_blocks(std::int64_t blocks, int threads,
                     const std::function<void(std::int64_t block)>& body) {
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&] {
    try {
      for (std::int64_t block = next++; block < blocks; block = next++) body(block);
    } catch (...) {
      next = blocks;
      std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    const std::int64_t wanted =
        std::min<std::int64_t>(blocks, threads > 0 ? threads : usable_cpus());
    for (std::int64_t i = 1; i < wanted; ++i) others.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace fluxion
