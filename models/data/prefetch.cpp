#include "models/data/prefetch.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/platform/machine.h"

namespace fluxion {

// Workers take step numbers in order and put what they made into `ready`, from which next() takes
// it in order.
struct Prefetcher::State {
  struct Made {
    HostBatch batch;
    std::exception_ptr failure;
  };

  std::shared_ptr<const DataSet> data;
  std::int64_t count;
  std::uint64_t seed, depth;

  std::mutex mutex;
  std::condition_variable_any room, made;
  std::uint64_t to_make, to_take;
  std::map<std::uint64_t, Made> ready;
  std::vector<std::jthread> workers;  // last, so that they end before what they use

  State(std::shared_ptr<const DataSet> data, std::int64_t count, std::uint64_t seed,
        std::uint64_t first, std::uint64_t depth, int threads)
      : data(std::move(data)),
        count(count),
        seed(seed),
        depth(depth),
        to_make(first),
        to_take(first) {
    for (int i = 0; i < threads; ++i)
      workers.emplace_back([this](std::stop_token stop) { work(stop); });
  }
  ~State() {
    for (std::jthread& worker : workers) worker.request_stop();
  }

  void work(std::stop_token stop) {
    while (true) {
      std::uint64_t step = 0;
      {
        std::unique_lock lock(mutex);
        // A wait that a stop ends returns the predicate, which may be true.
        if (!room.wait(lock, stop, [&] { return to_make - to_take < depth; }) ||
            stop.stop_requested())
          return;
        step = to_make++;
      }
      Made result;
      try {
        result.batch = data->batch(count, seed, step);
      } catch (...) {
        result.failure = std::current_exception();
      }
      {
        const std::lock_guard lock(mutex);
        ready.emplace(step, std::move(result));
      }
      made.notify_one();
    }
  }
};

Prefetcher::Prefetcher(std::shared_ptr<const DataSet> data, std::int64_t count, std::uint64_t seed,
                       std::uint64_t first, const PrefetchOptions& options) {
  if (!data) throw Error("prefetch: no data set");
  if (count < 1 || options.depth < 0 || options.threads < 0)
    throw Error("prefetch: batches of " + std::to_string(count) + " (at least 1), depth " +
                std::to_string(options.depth) + " and threads " + std::to_string(options.threads) +
                " (at least 0)");
  const int threads = options.threads > 0 ? options.threads : std::clamp(usable_cpus() / 2, 1, 8);
  const int depth = options.depth > 0 ? options.depth : threads + 2;
  state_ = std::make_unique<State>(std::move(data), count, seed, first,
                                   static_cast<std::uint64_t>(depth), threads);
}
Prefetcher::~Prefetcher() = default;
Prefetcher::Prefetcher(Prefetcher&&) noexcept = default;
Prefetcher& Prefetcher::operator=(Prefetcher&&) noexcept = default;

HostBatch Prefetcher::next() {
  State& state = *state_;
  State::Made result;
  {
    std::unique_lock lock(state.mutex);
    state.made.wait(lock, [&] { return state.ready.contains(state.to_take); });
    result = std::move(state.ready.extract(state.to_take).mapped());
    ++state.to_take;
  }
  state.room.notify_one();
  if (result.failure) std::rethrow_exception(result.failure);
  return std::move(result.batch);
}

std::uint64_t Prefetcher::step() const {
  const std::lock_guard lock(state_->mutex);
  return state_->to_take;
}

}  // namespace fluxion
