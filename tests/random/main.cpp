// fluxion-random: random programs by the thousand.
//
//   fluxion-random --count 20000 --seed 1
//       checks that many programs; the same seed gives the same programs
//   fluxion-random --time 600
//       as many as fit into so many seconds
//   fluxion-random --device tiny
//       on the device whose kernels hold next to nothing; `all` checks each program on each
//   fluxion-random --device vulkan:0
//       on a device of that name, in f32
//   fluxion-random --only 17
//       prints and checks one of them
//   fluxion-random --plan-only --count 5000
//       plans programs of very large tensors, which are never run
//
// Ends with the counts: programs, nodes, in how many programs each op was. Exits with 1 if a check
// failed - with the program, made as small as it gets while it still fails - or if an op was in
// less than one program in a hundred.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <thread>

#include "backends/cpu/cpu.h"
#include "backends/open_device.h"
#include "backends/reference/reference.h"
#include "tests/backend/tiny_backend.h"
#include "tests/random/check.h"
#include "tests/random/plan_only.h"
#include "tests/random/survey.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// Plans `count` large programs, or the one numbered `only`; `scale` is the logarithm of how many
// elements they have, 0 for a mixture. Returns what the program exits with.
int plan_large(std::uint64_t seed, std::int64_t count, std::int64_t only, int scale,
               const Device& device, unsigned threads, int failures_wanted) {
  std::mutex mutex;
  std::atomic<std::int64_t> next = only >= 0 ? only : 0;
  if (only >= 0) count = only + 1;
  std::int64_t planned = 0, over_2_20 = 0, over_2_31 = 0, over_2_32 = 0;
  std::atomic<int> failures = 0;
  const auto work = [&] {
    for (std::int64_t number = next++; number < count && failures < failures_wanted;
         number = next++) {
      const auto own = static_cast<std::uint64_t>(number);
      const LargePlan plan =
          plan_large_program(seed, own, scale > 0 ? std::int64_t{1} << scale : mixed_scale(own),
                             device.backend().capabilities());
      std::lock_guard lock(mutex);
      ++planned;
      over_2_20 += plan.points > (std::int64_t{1} << 20) ? 1 : 0;
      over_2_31 += plan.points > (std::int64_t{1} << 31) ? 1 : 0;
      over_2_32 += plan.points > (std::int64_t{1} << 32) ? 1 : 0;
      if (plan.failure.empty()) continue;
      ++failures;
      std::printf("\nFAILED: large program %lld of seed %llu: %s\n%s\n",
                  static_cast<long long>(number), static_cast<unsigned long long>(seed),
                  plan.failure.c_str(), plan.graph.c_str());
    }
  };
  std::vector<std::thread> pool;
  for (unsigned i = 1; i < threads; ++i) pool.emplace_back(work);
  work();
  for (std::thread& thread : pool) thread.join();
  std::printf(
      "seed %llu on %s: %lld programs planned, with kernels over 2^20 points %lld, over 2^31 %lld, "
      "over 2^32 %lld; %d failed\n",
      static_cast<unsigned long long>(seed), device.name().c_str(), static_cast<long long>(planned),
      static_cast<long long>(over_2_20), static_cast<long long>(over_2_31),
      static_cast<long long>(over_2_32), failures.load());
  return failures > 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Checks random programs: every backend, every transform.");
  std::int64_t count = 1000, only = -1;
  std::uint64_t seed = 1;
  double seconds = 0;
  unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  bool print = false;
  int failures_wanted = 5;
  app.add_option("--count", count, "Programs to check")->capture_default_str();
  app.add_option("--seed", seed, "Of the first program")->capture_default_str();
  app.add_option("--time", seconds, "Seconds to go on for, instead of a count");
  app.add_option("--threads", threads, "Threads, each with devices of its own")
      ->capture_default_str();
  app.add_option("--only", only, "Number of the one program to check and print");
  app.add_option("--failures", failures_wanted, "Failures after which to stop")
      ->capture_default_str();
  app.add_flag("--print", print, "Print every program");
  std::string device_name = "all";
  bool plan_only = false;
  int scale = 0;
  app.add_option("--device", device_name, "Where programs run")
      ->check([](const std::string& name) {
        return name == "cpu" || name == "tiny" || name == "all" || name.starts_with("vulkan")
                   ? std::string()
                   : "cpu, tiny, all, or vulkan:N";
      })
      ->capture_default_str();
  app.add_flag("--plan-only", plan_only, "Plan programs of very large tensors, run nothing");
  app.add_option("--scale", scale, "With --plan-only: tensors of 2^N elements; 0: 20, 31 and 32")
      ->check(CLI::Range(0, 34));
  CLI11_PARSE(app, argc, argv);

  if (plan_only)
    return plan_large(seed, count, only, scale, device_name == "tiny" ? tiny() : cpu({1}), threads,
                      failures_wanted);
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::mutex mutex;
  Survey survey;
  std::atomic<std::int64_t> next = only >= 0 ? only : 0;
  if (only >= 0) count = only + 1, print = true;
  std::atomic<int> failures = 0;
  const auto work = [&] {
    const Device defining = reference();
    std::vector<CheckDevices> all;
    if (device_name.starts_with("vulkan")) {
      all.push_back({defining, open_device(device_name)});
    } else {
      if (device_name != "tiny") all.push_back({defining, cpu({1})});
      if (device_name != "cpu") all.push_back({defining, tiny()});
    }
    for (std::int64_t number = next++;
         (seconds > 0 && only < 0 ? elapsed() < seconds : number < count) &&
         failures < failures_wanted;
         number = next++) {
      RandomProgram program = numbered_program(seed, static_cast<std::uint64_t>(number));
      if (print)
        std::printf("program %lld\n%s", static_cast<long long>(number), to_string(program).c_str());
      CheckResult result = place_and_check(program, all[0]);
      const CheckDevices* devices = &all[0];
      for (std::size_t i = 1; i < all.size() && result.placed && result.failure.empty(); ++i) {
        const CheckResult other = check(program, all[i], {});
        result.failure = other.failure;
        devices = &all[i];
      }
      {
        std::lock_guard lock(mutex);
        survey.add(program, result);
        if (survey.programs % 1000 == 0)
          std::fprintf(stderr, "%lld programs, %lld failed, %.0f s\n",
                       static_cast<long long>(survey.programs), static_cast<long long>(failures),
                       elapsed());
      }
      if (result.failure.empty()) continue;
      ++failures;
      const RandomProgram small = smallest_failing(program, *devices, {});
      std::lock_guard lock(mutex);
      std::printf("\nFAILED on %s: program %lld of seed %llu: %s\nmade smaller: %s\n%s\n",
                  devices->cpu.name().c_str(), static_cast<long long>(number),
                  static_cast<unsigned long long>(seed), result.failure.c_str(),
                  check(small, *devices).failure.c_str(), to_string(small).c_str());
      std::fflush(stdout);  // a long run may be cut off
    }
  };
  std::vector<std::thread> pool;
  for (unsigned i = 1; i < threads; ++i) pool.emplace_back(work);
  work();
  for (std::thread& thread : pool) thread.join();

  std::printf("seed %llu: %s%.0f s\n", static_cast<unsigned long long>(seed), survey.text().c_str(),
              elapsed());
  if (failures > 0) return 1;
  const std::string rare = only >= 0 || survey.programs < 1000 ? "" : survey.rare(0.01);
  if (!rare.empty()) std::printf("in too few programs: %s\n", rare.c_str());
  return rare.empty() ? 0 : 1;
}
