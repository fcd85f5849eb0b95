// Timing on a machine that may have other things to do.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace fluxion {

struct TimingOptions {
  int warm_up = 3;             // calls before anything counts
  std::size_t samples = 20;    // calls wanted from quiet stretches
  double chunk_seconds = 0.5;  // calls are judged in stretches of about this length
  double max_seconds = 60;     // give up looking for quiet stretches
  double max_foreign = 0.1;    // processors that others may keep busy in a quiet stretch
};

struct Timings {
  double median = 0, lowest = 0, p10 = 0, p90 = 0;  // seconds a call
  std::size_t samples = 0;                          // that these are of
  std::size_t noisy = 0;   // calls measured while others used the machine: left out
  bool all_noisy = false;  // there was no quiet stretch, so the noisy calls had to do
};

// Times `call` in stretches. A stretch during which other processes used the machine is measured
// again. At least one call is timed.
Timings time_calls(const std::function<void()>& call, const TimingOptions& options);

// Sorted order statistics of at least one time.
Timings statistics(std::vector<double> seconds);

}  // namespace fluxion
