#include "backends/cpu/tape/tape_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/runtime/fma_rate.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "backends/cpu/runtime/fma_rate.h"

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Runs `rounds` of twelve independent multiply-adds and returns the operations done. Twelve keep
// two units with a latency of six busy and fit into sixteen registers. `sum` keeps the compiler
// from dropping them.
double MultiplyAdds(long rounds, float* sum) {
  const hn::ScalableTag<float> d;
  const auto scale = hn::Set(d, 0.5f), shift = hn::Set(d, 0.25f);
  // Twelve different numbers: equal ones could be computed once.
  const auto start = [&](int number) { return hn::Set(d, 0.03125f * static_cast<float>(number)); };
  auto a = start(0), b = start(1), c = start(2), e = start(3), f = start(4), g = start(5);
  auto h = start(6), i = start(7), j = start(8), k = start(9), l = start(10), m = start(11);
  for (long round = 0; round < rounds; ++round) {
    a = hn::MulAdd(a, scale, shift);
    b = hn::MulAdd(b, scale, shift);
    c = hn::MulAdd(c, scale, shift);
    e = hn::MulAdd(e, scale, shift);
    f = hn::MulAdd(f, scale, shift);
    g = hn::MulAdd(g, scale, shift);
    h = hn::MulAdd(h, scale, shift);
    i = hn::MulAdd(i, scale, shift);
    j = hn::MulAdd(j, scale, shift);
    k = hn::MulAdd(k, scale, shift);
    l = hn::MulAdd(l, scale, shift);
    m = hn::MulAdd(m, scale, shift);
  }
  const auto first = hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, e)), hn::Add(f, g));
  const auto second = hn::Add(hn::Add(hn::Add(h, i), hn::Add(j, k)), hn::Add(l, m));
  *sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(first, second)));
  return 2.0 * 12.0 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "backends/cpu/runtime/parallel.h"

namespace fluxion {
namespace cpu_backend {

HWY_EXPORT(MultiplyAdds);

namespace {
double multiply_adds(long rounds, float* sum) {
  return HWY_DYNAMIC_DISPATCH(MultiplyAdds)(rounds, sum);
}
}  // namespace

}  // namespace cpu_backend

double measure_fma_rate(int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  constexpr long rounds =
      2'000'000;  // some milliseconds: far longer than it takes a sleeping worker to join
  const cpu_backend::ThreadPool pool(threads);
  const auto tasks = static_cast<std::size_t>(pool.threads());
  std::vector<float> sums(tasks);
  std::vector<double> operations(tasks);
  double best = 0;
  const auto start = Clock::now();
  do {
    // Threads start together: waking up is not timed, being late afterwards is.
    std::atomic<std::size_t> arrived{0};
    std::vector<Clock::time_point> begin(tasks), end(tasks);
    pool.parallel_for(static_cast<std::int64_t>(tasks), [&](std::int64_t task) {
      const auto mine = static_cast<std::size_t>(task);
      ++arrived;
      const auto wait = Clock::now();
      while (arrived < tasks && seconds_since(wait) < 0.002) {
      }
      begin[mine] = Clock::now();
      operations[mine] = cpu_backend::multiply_adds(rounds, &sums[mine]);
      end[mine] = Clock::now();
    });
    double total = 0;
    for (const double count : operations) total += count;
    const double taken =
        std::chrono::duration<double>(*std::max_element(end.begin(), end.end()) -
                                      *std::min_element(begin.begin(), begin.end()))
            .count();
    best = std::max(best, total / taken);
  } while (seconds_since(start) < seconds);
  return best;
}

}  // namespace fluxion
#endif
