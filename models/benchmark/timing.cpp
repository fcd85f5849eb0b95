#include "models/benchmark/timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "engine/error.h"
#include "engine/platform/usage.h"

namespace fluxion {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double timed(const std::function<void()>& call) {
  const auto start = Clock::now();
  call();
  return since(start);
}

}  // namespace

Timings statistics(std::vector<double> seconds) {
  if (seconds.empty()) throw Error("timing: there are no times");
  std::sort(seconds.begin(), seconds.end());
  const std::size_t count = seconds.size();
  Timings result;
  result.median = (seconds[(count - 1) / 2] + seconds[count / 2]) / 2;
  result.lowest = seconds.front();
  result.p10 = seconds[count / 10];
  result.p90 = seconds[std::min(count - 1, 9 * count / 10)];
  result.samples = count;
  return result;
}

Timings time_calls(const std::function<void()>& call, const TimingOptions& options) {
  for (int i = 0; i < options.warm_up; ++i) call();
  const auto per_chunk =
      static_cast<std::size_t>(std::max(1.0, options.chunk_seconds / std::max(timed(call), 1e-9)));
  std::vector<double> quiet, noisy;
  const auto start = Clock::now();
  do {
    const double busy = machine_busy_seconds().value_or(0), own = process_busy_seconds();
    const auto begin = Clock::now();
    std::vector<double> chunk;
    for (std::size_t i = 0; i < per_chunk; ++i) chunk.push_back(timed(call));
    const double foreign =
        (machine_busy_seconds().value_or(0) - busy - (process_busy_seconds() - own)) / since(begin);
    auto& kept = foreign < options.max_foreign ? quiet : noisy;
    kept.insert(kept.end(), chunk.begin(), chunk.end());
  } while (quiet.size() < options.samples && since(start) < options.max_seconds);
  Timings result = statistics(quiet.empty() ? noisy : quiet);
  result.noisy = noisy.size();
  result.all_noisy = quiet.empty();
  return result;
}

}  // namespace fluxion
