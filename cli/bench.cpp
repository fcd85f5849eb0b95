// fluxion bench: how fast a training step or a sample is here, and how close to what the machine
// can do.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backends/cpu/runtime/fma_rate.h"
#include "cli/allocations.h"
#include "cli/command.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "engine/platform/machine.h"
#include "engine/platform/usage.h"
#include "models/benchmark/benchmark.h"
#include "models/benchmark/bound_program.h"
#include "models/benchmark/comparison.h"
#include "models/benchmark/device_speed.h"
#include "models/benchmark/profile.h"
#include "models/benchmark/timing.h"

namespace fluxion::cli {

namespace {

struct BenchArguments : CommonOptions {
  std::string net = "dit28", objective = "meanflow", tangent = "all";
  std::int64_t batch = 0;
  std::size_t steps = 20;
  double seconds = 60;
  double peak_seconds = 0.5;
  std::string precision = "f32";
  bool profile = false;
  std::string timeline, check;
};

constexpr double mebi = 1 << 20;

BenchmarkTask task_of(const BenchArguments& options) {
  if (options.tangent == "subset") {
    if (options.objective != "meanflow")
      throw Error("bench: --tangent subset belongs to --objective meanflow");
    return BenchmarkTask::meanflow_subset;
  }
  if (options.objective == "flow-matching") return BenchmarkTask::flow_matching;
  if (options.objective == "meanflow") return BenchmarkTask::meanflow;
  return options.objective == "forward" ? BenchmarkTask::forward : BenchmarkTask::sample;
}

// At the right of a column.
std::string in_column(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}
std::string in_column(double value, int decimals, std::size_t width) {
  return in_column(fixed_text(value, decimals), width);
}

struct StepMeasurement {
  Timings timings;
  MemoryReport report;
  std::size_t kernels = 0;
  double flops = 0, peak_rate = 0;                        // per step; per second
  std::uint64_t allocations = 0, kernel_allocations = 0;  // per step; of it, while kernels run
  std::uint64_t resident_before = 0, resident_peak = 0;
  double last = 0;
  std::vector<double> kernel_seconds;
  double profiled_seconds = 0;
  Roofline roofline;
  std::vector<ProfileRow> profile;

  double rate() const { return flops / timings.median; }
};

// The median over a few runs, kernel by kernel.
std::vector<double> kernel_times(Benchmark& benchmark, std::size_t kernels) {
  constexpr std::size_t runs = 7;
  std::vector<std::vector<double>> times(kernels);
  for (std::size_t run = 0; run < runs; ++run) {
    std::vector<double> seconds;
    RunOptions options;
    options.kernel_seconds = &seconds;
    benchmark.step(options);
    for (std::size_t k = 0; k < kernels; ++k) times[k].push_back(seconds.at(k));
  }
  std::vector<double> result;
  for (std::vector<double>& of_kernel : times)
    result.push_back(statistics(std::move(of_kernel)).median);
  return result;
}

// The program by itself: what is allocated from its first kernel to its last.
std::uint64_t allocations_of_kernels(const Program& program, const Device& device) {
  BoundProgram bound(program, device);
  for (int i = 0; i < 2; ++i) bound.run();  // the first makes the workspace
  const std::uint64_t before = allocation_count();
  bound.run();
  return allocation_count() - before;
}

// Operations a second that products are compared with: multiply-adds of the processor; of another
// device its fastest product of such factors. 0 where nothing is to be measured.
double measure_peak_rate(const BenchArguments& options, const Device& device) {
  if (options.peak_seconds <= 0) return 0;
  if (device.name().starts_with("cpu"))
    return measure_fma_rate(host_threads(options), options.peak_seconds / 2);
  return product_rate(device, options.peak_seconds / 2, precision_from(options.precision).operands);
}

Roofline measure_roofline(const BenchArguments& options, const Device& device, double peak_rate) {
  if (options.peak_seconds <= 0) return {};
  return {peak_rate, memory_rate(device, options.peak_seconds / 2)};
}

StepMeasurement measure(const BenchArguments& options, BenchmarkTask task,
                        const NetworkConfig& network, std::int64_t batch, const Device& device) {
  StepMeasurement result;
  result.flops = necessary_flops(task, network, batch);
  const ResidentMemory before = resident_memory().value_or(ResidentMemory{});
  result.resident_before = before.now;
  result.peak_rate = measure_peak_rate(options, device);

  Benchmark benchmark(task, network, batch, device);
  result.report = benchmark.memory_report();
  result.kernels = benchmark.program().kernels.size();
  Tensor value;
  result.timings = time_calls([&] { value = benchmark.step(); },
                              {.samples = options.steps, .max_seconds = options.seconds});

  constexpr std::uint64_t counted_steps = 4;
  const std::uint64_t allocations = allocation_count();
  for (std::uint64_t i = 0; i < counted_steps; ++i) value = benchmark.step();
  result.allocations = (allocation_count() - allocations) / counted_steps;

  result.resident_peak = resident_memory().value_or(ResidentMemory{}).peak;
  // The clock may have changed meanwhile: the higher of a measurement before and one after.
  result.peak_rate = std::max(result.peak_rate, measure_peak_rate(options, device));
  result.last = mean(value).item<float>();
  result.kernel_allocations = allocations_of_kernels(benchmark.program(), device);
  if (options.profile || !options.timeline.empty()) {
    result.kernel_seconds = kernel_times(benchmark, result.kernels);
    for (const double seconds : result.kernel_seconds) result.profiled_seconds += seconds;
    result.roofline = measure_roofline(options, device, result.peak_rate);
    result.profile = profile(benchmark.program(), result.kernel_seconds, result.roofline);
  }
  if (!options.timeline.empty())
    replace_file(options.timeline,
                 timeline_svg(benchmark.program(), result.kernel_seconds, result.roofline,
                              options.net + ", " + options.objective + ", batch " +
                                  std::to_string(batch) + ", " + device.name()));
  return result;
}

// "-" where there is none.
std::string rate_in_column(double amount, double seconds, int decimals, std::size_t width) {
  return amount > 0 && seconds > 0 ? in_column(amount / seconds, decimals, width)
                                   : in_column("-", width);
}

void print_profile(std::ostream& out, const StepMeasurement& result) {
  const Roofline& roofline = result.roofline;
  double least = 0;
  for (const ProfileRow& row : result.profile) least += row.least_seconds;
  out << "\nkernels by time: " << fixed_text(1e3 * result.profiled_seconds, 2)
      << " ms in all, medians of single kernels";
  if (least > 0)
    out << "; " << fixed_text(1e3 * least, 2) << " ms if each reached the roofline, "
        << fixed_text(roofline.flops / 1e9, 1) << " GFLOP/s and "
        << fixed_text(roofline.bytes / 1e9, 1) << " GB/s";
  out << "\n      ms  share  count    GFLOP  GFLOP/s       MB   GB/s   roof  kernel\n";
  constexpr std::size_t shown = 30;
  double rest = 0;
  for (std::size_t i = 0; i < result.profile.size(); ++i) {
    const ProfileRow& row = result.profile[i];
    if (i >= shown) {
      rest += row.seconds;
      continue;
    }
    out << in_column(1e3 * row.seconds, 3, 8) << ' '
        << in_column(100 * row.seconds / result.profiled_seconds, 1, 5) << "% "
        << in_column(std::to_string(row.kernels.size()), 6) << ' '
        << rate_in_column(row.flops / 1e9, 1, 3, 8) << ' '
        << rate_in_column(row.flops / 1e9, row.seconds, 1, 8) << ' '
        << in_column(row.bytes / 1e6, 2, 8) << ' '
        << rate_in_column(row.bytes / 1e9, row.seconds, 1, 6) << ' '
        << rate_in_column(100 * row.least_seconds, row.seconds, 0, 5) << "% " << row.text
        << " (no. " << row.kernels.front() << (row.kernels.size() > 1 ? ", ..." : "") << ")\n";
  }
  if (result.profile.size() > shown)
    out << in_column(1e3 * rest, 3, 8) << ' '
        << in_column(100 * rest / result.profiled_seconds, 1, 5) << "%        the other "
        << result.profile.size() - shown << " kinds\n";
}

nlohmann::json profile_json(const StepMeasurement& result) {
  nlohmann::json rows = nlohmann::json::array();
  for (const ProfileRow& row : result.profile)
    rows.push_back({{"kernel", row.text},
                    {"ms", 1e3 * row.seconds},
                    {"roofline_ms", 1e3 * row.least_seconds},
                    {"gflop", row.flops / 1e9},
                    {"bytes", row.bytes},
                    {"numbers", row.kernels}});
  return rows;
}

// One step against the same step of another program.
int check(const BenchArguments& options, const Streams& streams) {
  constexpr double tolerance = 1e-4;
  const std::vector<TensorDifference> differences =
      compare_step(options.check, open_device(options, streams));
  const bool passed = differences.front().relative <= tolerance;  // not so where it is no number
  if (options.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const TensorDifference& difference : differences)
      list.push_back({{"name", difference.name}, {"relative_difference", difference.relative}});
    write_json(streams.out, {{"passed", passed}, {"tolerance", tolerance}, {"tensors", list}});
    return passed ? 0 : 1;
  }
  for (const TensorDifference& difference : differences) {
    const bool value =
        difference.name == "u" || difference.name == "dudt" || difference.name == "loss";
    if (value || &difference == &differences.front() || !(difference.relative <= tolerance))
      streams.out << scientific_text(difference.relative, 1) << "  " << printable(difference.name)
                  << "\n";
  }
  streams.out << (passed ? "OK: " : "FAIL: ") << differences.size()
              << " tensors, relative differences at most "
              << scientific_text(differences.front().relative, 1) << ", allowed "
              << scientific_text(tolerance, 0) << std::endl;
  return passed ? 0 : 1;
}

int bench(const BenchArguments& options, const Streams& streams) {
  if (!options.check.empty()) return check(options, streams);
  const BenchmarkTask task = task_of(options);
  const BenchmarkNetwork& network = benchmark_network(options.net);
  const std::int64_t batch = options.batch > 0 ? options.batch : network.batch;
  const int threads = host_threads(options) > 0 ? host_threads(options) : usable_cpus();
  const Device device = open_device(options, streams);
  const StepMeasurement result =
      measure(options, task, with_precision(network.config, precision_from(options.precision)),
              batch, device);
  const Timings& timings = result.timings;

  if (options.json) {
    nlohmann::json object = {
        {"net", options.net},
        {"objective", options.objective},
        {"tangent", options.objective == "meanflow" ? options.tangent : ""},
        {"batch", batch},
        {"precision", options.precision},
        {"threads", threads},
        {"device", device.name()},
        {"ms_median", 1e3 * timings.median},
        {"ms_min", 1e3 * timings.lowest},
        {"ms_p10", 1e3 * timings.p10},
        {"ms_p90", 1e3 * timings.p90},
        {"samples", timings.samples},
        {"noisy_samples", timings.noisy},
        {"all_noisy", timings.all_noisy},
        {"gflop", result.flops / 1e9},
        {"gflops", result.rate() / 1e9},
        {"params", parameter_count(network.config)},
        {"kernels", result.kernels},
        {"allocations_per_step", result.allocations},
        {"kernel_allocations_per_step", result.kernel_allocations},
        {"start_rss_mib", static_cast<double>(result.resident_before) / mebi},
        {"peak_rss_mib", static_cast<double>(result.resident_peak) / mebi},
        {"planned_peak_mib", static_cast<double>(result.report.peak_bytes()) / mebi},
        {"last", result.last}};
    if (result.peak_rate > 0) {
      object["peak_gflops"] = result.peak_rate / 1e9;
      object["peak_fraction"] = result.rate() / result.peak_rate;
    }
    if (result.roofline.bytes > 0) object["memory_gbytes"] = result.roofline.bytes / 1e9;
    if (options.profile) object["profile"] = profile_json(result);
    if (!options.timeline.empty()) object["timeline"] = options.timeline;
    write_json(streams.out, object);
    return 0;
  }

  std::ostream& out = streams.out;
  out << options.net << ", " << options.objective;
  if (options.objective == "meanflow") out << " (tangent: " << options.tangent << ")";
  out << ", batch " << batch;
  if (options.precision != "f32") out << ", " << options.precision;
  out << ", " << device.name() << "\n";
  const auto ms = [](double seconds) { return fixed_text(1e3 * seconds, 3); };
  out << "time         " << ms(timings.median) << " ms median, " << ms(timings.p10) << " to "
      << ms(timings.p90) << " (10% to 90%), " << ms(timings.lowest) << " lowest, of "
      << timings.samples << "\n";
  if (timings.all_noisy) {
    out << "noise        other processes used the machine all the time: don't trust these "
           "figures\n";
  } else if (timings.noisy > 0) {
    out << "noise        " << timings.noisy
        << " more left out, because other processes used the machine\n";
  }
  out << "work         " << fixed_text(result.flops / 1e9, 2)
      << " GFLOP in matrix products: " << fixed_text(result.rate() / 1e9, 1) << " GFLOP/s";
  if (result.peak_rate > 0)
    out << ", " << fixed_text(100 * result.rate() / result.peak_rate, 0) << "% of the "
        << fixed_text(result.peak_rate / 1e9, 1) << " measured";
  out << "\nmemory       " << fixed_text(static_cast<double>(result.resident_peak) / mebi, 0)
      << " MiB at most (" << fixed_text(static_cast<double>(result.resident_before) / mebi, 0)
      << " MiB at the start); planned: " << to_string(result.report) << "\nallocations  "
      << result.allocations << " a step, " << result.kernel_allocations
      << " of them while kernels run\n"
      << "parameters   " << grouped(parameter_count(network.config)) << "\n";
  if (options.profile) print_profile(out, result);
  if (!options.timeline.empty()) out << "timeline     " << printable(options.timeline) << "\n";
  out << std::flush;
  return 0;
}

}  // namespace

Command add_bench(CommandLine& program, const Streams& streams) {
  auto options = std::make_shared<BenchArguments>();
  const Parser parser =
      program.add_subcommand("bench", "Time training steps and samples on this machine");
  parser
      .add_option("--net", options->net,
                  "mlp2d (points in the plane), dit28 (28 x 28 digits), unet32 (32 x 32 colour "
                  "images) or ditb2 (DiT-B/2 on latents 32 x 32 x 4, for GPUs) (default: dit28)")
      .check(one_of({"mlp2d", "dit28", "unet32", "ditb2"}))
      .type_name("NAME");
  parser
      .add_option("--objective", options->objective,
                  "flow-matching or meanflow (a training step), forward (one evaluation), sample "
                  "(one-step generation) (default: meanflow)")
      .check(one_of({"flow-matching", "meanflow", "forward", "sample"}))
      .type_name("NAME");
  parser
      .add_option("--tangent", options->tangent,
                  "MeanFlow's derivative over all rows, or the subset, a quarter, with r != t "
                  "(default: all)")
      .check(one_of({"all", "subset"}))
      .type_name("ROWS");
  parser
      .add_number("--batch", options->batch, whole(0, 1 << 24),
                  "Samples in a step; 0: the network's own (mlp2d 4096, dit28 64, unet32 16, ditb2 "
                  "16) (default: 0)")
      .type_name("B");
  parser
      .add_number("--steps", options->steps, whole(1, 1 << 20),
                  "Undisturbed steps to time (default: 20)")
      .type_name("N");
  parser
      .add_number("--seconds", options->seconds, real(1e-3, 1e6, Precision::double_precision),
                  "Stop waiting for undisturbed steps after this long (default: 60)")
      .type_name("S");
  parser
      .add_number(
          "--peak-seconds", options->peak_seconds, real(0, 1e4, Precision::double_precision),
          "Time for measuring the multiply-adds that the processor can do, 0: don't (default: 0.5)")
      .type_name("S");
  add_precision(parser, options->precision);
  parser.add_flag("--profile", options->profile,
                  "List the slowest kernels: their operations, their bytes, and how much of the "
                  "roofline they reach");
  parser
      .add_option("--timeline", options->timeline,
                  "Draw the kernels of a step one after the other, as SVG")
      .type_name("FILE");
  parser
      .add_option("--check", options->check,
                  "Time nothing; compute the step in this safetensors file and compare with the "
                  "results in it (bench/check_against_torch.py)")
      .type_name("FILE");
  add_device(parser, *options);
  add_json(parser, *options);
  parser.footer(
      "Steps during which other processes used the machine are timed again.\n\n"
      "Examples:\n"
      "  fluxion bench --net dit28 --objective meanflow --tangent subset\n"
      "  fluxion bench --net mlp2d --objective flow-matching --device cpu:1 --profile\n"
      "  fluxion bench --net dit28 --timeline step.svg");
  return {parser, [options, &streams] { return bench(*options, streams); }};
}

}  // namespace fluxion::cli
