#include "models/data/prefetch.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/platform/machine.h"
#include "engine/platform/threads.h"

namespace fluxion {

// Workers take step numbers in order and put what they made into its place, from which next() takes
// it in order. Where the system has no thread for a worker, next() makes the batches.
struct Prefetcher::State {
  struct Made {
    HostBatch batch;
    std::exception_ptr failure;
  };

  std::shared_ptr<const DataSet> data;
  std::int64_t count;
  std::uint64_t seed, depth;
  std::function<void(HostBatch&, std::uint64_t)> prepare;

  std::mutex mutex;
  std::condition_variable_any room, made;
  std::uint64_t to_make, to_take;
  std::vector<std::optional<Made>> places;  // [depth], of step i: i mod depth
  std::vector<std::jthread> workers;        // last, so that they end before what they use

  State(std::shared_ptr<const DataSet> data, std::int64_t count, std::uint64_t seed,
        std::uint64_t first, std::uint64_t depth, int threads,
        std::function<void(HostBatch&, std::uint64_t)> prepare)
      : data(std::move(data)),
        count(count),
        seed(seed),
        depth(depth),
        prepare(std::move(prepare)),
        to_make(first),
        to_take(first),
        places(depth),
        workers(start_threads(static_cast<std::size_t>(threads),
                              [this](std::stop_token stop) { work(stop); })) {}
  ~State() {
    for (std::jthread& worker : workers) worker.request_stop();
  }

  HostBatch make(std::uint64_t step) const {
    HostBatch batch = data->batch(count, seed, step);
    if (prepare) prepare(batch, step);
    return batch;
  }

  std::optional<Made>& place_of(std::uint64_t step) { return places[step % depth]; }

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
        result.batch = make(step);
      } catch (...) {
        result.failure = std::current_exception();
      }
      {
        const std::lock_guard lock(mutex);
        place_of(step) = std::move(result);
      }
      made.notify_one();
    }
  }
};

int usual_prefetch_threads() { return std::clamp(usable_cpus() / 2, 1, 8); }

Prefetcher::Prefetcher(std::shared_ptr<const DataSet> data, std::int64_t count, std::uint64_t seed,
                       std::uint64_t first, const PrefetchOptions& options) {
  if (!data) throw Error("prefetch: no data set");
  if (count < 1 || options.depth < 0 || options.threads < 0)
    throw Error("prefetch: batches of " + std::to_string(count) + " (at least 1), depth " +
                std::to_string(options.depth) + " and threads " + std::to_string(options.threads) +
                " (at least 0)");
  const int threads = options.threads > 0 ? options.threads : usual_prefetch_threads();
  const int depth = options.depth > 0 ? options.depth : threads + 2;
  state_ = std::make_unique<State>(std::move(data), count, seed, first,
                                   static_cast<std::uint64_t>(depth), threads, options.prepare);
}
Prefetcher::~Prefetcher() = default;
Prefetcher::Prefetcher(Prefetcher&&) noexcept = default;
Prefetcher& Prefetcher::operator=(Prefetcher&&) noexcept = default;

HostBatch Prefetcher::next() {
  State& state = *state_;
  if (state.workers.empty()) return state.make(state.to_take++);
  State::Made result;
  {
    std::unique_lock lock(state.mutex);
    std::optional<State::Made>& place = state.place_of(state.to_take);
    state.made.wait(lock, [&] { return place.has_value(); });
    result = std::move(*std::exchange(place, std::nullopt));
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
