// bench-kernels: matrix products and convolutions against OpenBLAS and oneDNN and against the
// processor's multiply-adds, attention against its own expansion, maps and row reductions against
// the memory's speed; every ratio from one process, contenders alternating. Google Benchmark's
// options work:
//
//   bench-kernels --benchmark_filter='products/.*2 threads' --benchmark_repetitions=9
//   --benchmark_min_time=0.1 bench-kernels --benchmark_format=json          (its own report instead
//   of the tables)
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "backends/cpu/runtime/fma_rate.h"
#include "bench/race.h"

namespace {

using namespace fluxion::bench;

std::string full_name(const Event& event, const Contender& contender) {
  return event.table + "/" + event.name + "/" + std::to_string(event.threads) +
         (event.threads == 1 ? " thread/" : " threads/") + contender.name;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

// Collects the seconds per call of every repetition; the tables come at the end.
class Collector final : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.error_occurred)
        std::fprintf(stderr, "%s: %s\n", run.benchmark_name().c_str(), run.error_message.c_str());
      if (run.error_occurred || run.run_type != Run::RT_Iteration || run.iterations == 0) continue;
      seconds_[run.run_name.function_name].push_back(run.real_accumulated_time /
                                                     static_cast<double>(run.iterations));
    }
  }
  // Median seconds of a contender, or 0 if it did not run.
  double operator()(const std::string& name) const {
    const auto found = seconds_.find(name);
    return found == seconds_.end() ? 0 : median(found->second);
  }

 private:
  std::map<std::string, std::vector<double>> seconds_;
};

// A row an event: the rate of each contender, ours over the best other, ours over the limit (0:
// there is none).
void print_table(const std::vector<Event>& events, const Collector& seconds,
                 const std::map<int, double>& limits, const char* unit) {
  std::vector<std::string> names;  // of those who ran
  for (const Event& event : events)
    for (const Contender& contender : event.contenders)
      if (seconds(full_name(event, contender)) > 0 &&
          std::find(names.begin(), names.end(), contender.name) == names.end())
        names.push_back(contender.name);
  if (names.empty()) return;
  std::printf("\n%-46s %7s", (events.front().table + ", " + unit).c_str(), "threads");
  for (const std::string& name : names) std::printf(" %12s", name.c_str());
  std::printf("  ours / best%s\n", limits.empty() ? "" : "  of FMA peak");
  for (const Event& event : events) {
    std::map<std::string, double> rates;
    for (const Contender& contender : event.contenders)
      if (const double time = seconds(full_name(event, contender)); time > 0)
        rates[contender.name] = event.amount / time / 1e9;
    if (rates.empty()) continue;
    std::printf("%-46s %7d", event.name.c_str(), event.threads);
    const std::string& ours = event.contenders.front().name;
    double best = 0;
    for (const std::string& name : names) {
      const auto rate = rates.find(name);
      if (rate == rates.end()) {
        std::printf(" %12s", "-");
        continue;
      }
      std::printf(" %12.1f", rate->second);
      if (name != ours) best = std::max(best, rate->second);
    }
    if (rates.contains(ours) && best > 0) {
      std::printf("  %11.2f", rates[ours] / best);
    } else {
      std::printf("  %11s", "-");
    }
    if (const auto limit = limits.find(event.threads);
        limit != limits.end() && rates.contains(ours))
      std::printf("  %10.0f%%", 100e9 * rates[ours] / limit->second);
    for (const Event& other : events)
      if (!event.compared_with.empty() && other.name == event.compared_with &&
          other.threads == event.threads && rates.contains(ours))
        if (const double time = seconds(full_name(other, other.contenders.front())); time > 0)
          std::printf("  %.2f x %s", event.amount / rates[ours] / 1e9 / time,
                      other.name.substr(other.name.rfind(' ') + 1).c_str());
    std::printf("\n");
  }
}

// The higher of what was found so far and now.
void measure_limits(std::map<int, double>& limits) {
  for (const int threads : {1, 2})
    limits[threads] = std::max(limits[threads], fluxion::measure_fma_rate(threads, 0.5));
}

}  // namespace

int main(int argc, char** argv) {
  // What the command line does not say otherwise.
  std::vector<char*> arguments(argv, argv + argc);
  std::vector<std::string> defaults = {"--benchmark_repetitions=7", "--benchmark_min_time=0.03",
                                       "--benchmark_enable_random_interleaving=true"};
  for (std::string& option : defaults) arguments.insert(arguments.begin() + 1, option.data());
  const bool own_report = std::any_of(argv, argv + argc, [](const char* text) {
    return std::strstr(text, "--benchmark_format") != nullptr;
  });
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;

  const std::vector<Event> contests = products(), images = convolutions(),
                           attentions = attention_passes(), passes = maps_and_rows();
  for (const std::vector<Event>* events : {&contests, &images, &attentions, &passes})
    for (const Event& event : *events)
      for (const Contender& contender : event.contenders)
        benchmark::RegisterBenchmark(full_name(event, contender).c_str(),
                                     [&contender](benchmark::State& state) {
                                       const std::function<void()> work = contender.prepare();
                                       work();
                                       for (auto _ : state) work();
                                     })
            ->UseRealTime();
  if (own_report) {
    benchmark::RunSpecifiedBenchmarks();
    return 0;
  }
  Collector collector;
  std::map<int, double> limits;
  measure_limits(limits);
  benchmark::RunSpecifiedBenchmarks(&collector);
  measure_limits(limits);
  std::printf("multiply-adds on registers: %.1f GFLOP/s on one thread, %.1f on two\n",
              limits[1] / 1e9, limits[2] / 1e9);
  print_table(contests, collector, limits, "GFLOP/s");
  print_table(images, collector, limits, "GFLOP/s");
  print_table(attentions, collector, limits, "GFLOP/s");
  print_table(passes, collector, {}, "GB/s");
  return 0;
}
