// Batches made ahead of their use, on threads of their own, so that reading and decoding overlap
// with training.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "models/data/data_set.h"

namespace fluxion {

struct PrefetchOptions {
  int depth = 0;    // batches held ready or in the making; 0: two more than threads
  int threads = 0;  // 0: half of the processors, 1 to 8
  // What is done to each batch, on the thread that made it; safe from several at once.
  std::function<void(HostBatch& batch, std::uint64_t step)> prepare = {};
};
// What 0 stands for.
int usual_prefetch_threads();

class Prefetcher {
 public:
  // Starts making the batches of steps first, first + 1, ... Throws Error unless count, depth and
  // threads make sense.
  Prefetcher(std::shared_ptr<const DataSet> data, std::int64_t count, std::uint64_t seed,
             std::uint64_t first = 0, const PrefetchOptions& options = {});
  // Starts no further batch, and waits for those in the making.
  ~Prefetcher();
  Prefetcher(Prefetcher&&) noexcept;
  Prefetcher& operator=(Prefetcher&&) noexcept;

  // The batch of the next step: bit for bit data.batch(count, seed, step), prepared. Throws what
  // making it threw, and goes on with the step after it.
  HostBatch next();
  // The step that next() will return.
  std::uint64_t step() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fluxion
