// fluxion-random: random programs by the thousand.
//
//   fluxion-random --count 20000 --seed 1        checks that many programs; the same seed gives the
//   same programs fluxion-random --time 600                    or as many as fit into so many
//   seconds fluxion-random --only 17                     prints and checks one of them
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
#include "backends/reference/reference.h"
#include "tests/random/check.h"
#include "tests/random/survey.h"

using namespace fluxion;
using namespace fluxion::testing;

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
  CLI11_PARSE(app, argc, argv);

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
    const CheckDevices devices{reference(), cpu({1})};
    for (std::int64_t number = next++;
         (seconds > 0 && only < 0 ? elapsed() < seconds : number < count) &&
         failures < failures_wanted;
         number = next++) {
      RandomProgram program = numbered_program(seed, static_cast<std::uint64_t>(number));
      if (print)
        std::printf("program %lld\n%s", static_cast<long long>(number), to_string(program).c_str());
      const CheckResult result = place_and_check(program, devices);
      {
        std::lock_guard lock(mutex);
        survey.add(program, result);
        if (survey.programs % 1000 == 0)
          std::fprintf(stderr, "%lld programs, %.0f s\n", static_cast<long long>(survey.programs),
                       elapsed());
      }
      if (result.failure.empty()) continue;
      ++failures;
      const RandomProgram small = smallest_failing(program, devices, {});
      std::lock_guard lock(mutex);
      std::printf("\nFAILED: program %lld of seed %llu: %s\nmade smaller: %s\n%s\n",
                  static_cast<long long>(number), static_cast<unsigned long long>(seed),
                  result.failure.c_str(), check(small, devices).failure.c_str(),
                  to_string(small).c_str());
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
