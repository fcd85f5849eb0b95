#include "models/evaluation/blocks.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/platform/machine.h"
#include "engine/platform/threads.h"

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
    const std::int64_t wanted =
        std::min<std::int64_t>(blocks, threads > 0 ? threads : usable_cpus());
    const std::vector<std::jthread> others =
        start_threads(static_cast<std::size_t>(std::max<std::int64_t>(wanted - 1, 0)), work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace fluxion
