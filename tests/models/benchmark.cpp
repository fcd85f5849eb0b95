// The benchmark networks and steps: that they are what they are said to be. (That they are the
// PyTorch program's, bench/check_against_torch.py shows.)
#include "models/benchmark/benchmark.h"

#include <cmath>
#include <numeric>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "backends/cpu/runtime/fma_rate.h"
#include "engine/graph/ops.h"
#include "models/benchmark/bound_program.h"
#include "models/benchmark/comparison.h"
#include "models/benchmark/profile.h"
#include "models/benchmark/timing.h"
#include "models/files/safetensors.h"
#include "tests/catch.h"
#include "tests/files/scratch.h"
#include "tests/show/well_formed.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// Draws whose last three quarters have r = t, as all tasks can take them.
FlowDraws draws_for(const NetworkConfig& network, std::int64_t batch, const Device& device) {
  Dims shape{batch};
  const Shape sample = sample_shape(network);
  shape.insert(shape.end(), sample.begin(), sample.end());
  FlowDraws draws = draw({.fixed_share = true}, normal(random_key(2, device), Shape(shape)), {}, 0,
                         random_key(3, device));
  draws.r = where(draws.equal_mask, draws.t, draws.r);
  draws.equal_mask = {};
  if (num_classes(network) > 0)
    draws.labels = {Tensor::from(std::vector<std::int32_t>(static_cast<std::size_t>(batch), 3),
                                 {batch}, device),
                    {},
                    num_classes(network)};
  return draws;
}

}  // namespace

TEST_CASE("the benchmark networks have the sizes they are said to have", "[benchmark]") {
  const NetworkConfig mlp = benchmark_network("mlp2d").config,
                      dit = benchmark_network("dit28").config;
  CHECK(parameter_count(mlp) == 1'119'234);
  CHECK(parameter_count(dit) == 1'924'752);
  CHECK(frozen_parameters(dit).empty());
  CHECK(parameter_count(benchmark_network("unet32").config) == 7'461'443);
  CHECK(parameter_count(benchmark_network("ditb2").config) == 131'288'080);  // as in PyTorch
  CHECK(benchmark_network("mlp2d").batch == 4096);
  CHECK(benchmark_network("dit28").batch == 64);
  CHECK(benchmark_network("unet32").batch == 16);
  CHECK_THROWS_AS(benchmark_network("unet"), Error);
}

TEST_CASE("the necessary operations of the benchmark steps are counted", "[benchmark]") {
  const auto giga = [](const char* name, BenchmarkTask task) {
    const BenchmarkNetwork& network = benchmark_network(name);
    return necessary_flops(task, network.config, network.batch) / 1e9;
  };
  // By hand: 2 (2 + 128) 512 + 4 * 2 * 512^2 + 2 * 512 * 2 operations a sample.
  const double sample = 2 * (2 + 128) * 512 + 4 * 2 * 512 * 512 + 2 * 512 * 2;
  CHECK(giga("mlp2d", BenchmarkTask::forward) == Approx(4096 * sample / 1e9).epsilon(1e-12));
  CHECK(giga("mlp2d", BenchmarkTask::flow_matching) ==
        Approx(3 * 4096 * sample / 1e9).epsilon(1e-12));
  CHECK(giga("mlp2d", BenchmarkTask::meanflow) == Approx(4 * 4096 * sample / 1e9).epsilon(1e-12));
  CHECK(giga("mlp2d", BenchmarkTask::meanflow_subset) ==
        Approx(3.25 * 4096 * sample / 1e9).epsilon(1e-12));
  // As the PyTorch program counts them with hooks on its layers.
  CHECK(giga("dit28", BenchmarkTask::sample) == Approx(7.99).epsilon(1e-3));
  CHECK(giga("dit28", BenchmarkTask::flow_matching) == Approx(24.0).epsilon(2e-3));
  CHECK(giga("dit28", BenchmarkTask::meanflow) == Approx(32.4).epsilon(2e-3));
  CHECK(giga("unet32", BenchmarkTask::sample) == Approx(51.65809664).epsilon(1e-9));
  // By hand: a token's products with weights and in attention, and a sample's conditioning.
  const double token = 2 * (16 * 768 + 12 * (4 + 8) * 768 * 768 + 768 * 16) + 12 * 4 * 256 * 768;
  const double condition = 2 * (2 * (256 + 768) * 768 + (12 * 6 + 2) * 768 * 768);
  CHECK(giga("ditb2", BenchmarkTask::sample) ==
        Approx(16 * (256 * token + condition) / 1e9).epsilon(1e-12));
  CHECK(giga("unet32", BenchmarkTask::flow_matching) == Approx(154.97428992).epsilon(1e-9));
  CHECK(giga("unet32", BenchmarkTask::meanflow) == Approx(209.518067712).epsilon(1e-9));
}

TEST_CASE("the benchmark tasks are one loss where r = t", "[benchmark]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network =
      MlpConfig{.data_dim = 2, .hidden = {16, 16}, .time_features = 8, .time_scale = 1000};
  const Parameters parameters = initialise(network, random_key(1, device));
  FlowDraws draws = draws_for(network, 8, device);
  const auto loss = [&](BenchmarkTask task) {
    return benchmark_loss(task, network, parameters, draws).loss.item<float>();
  };
  CHECK(loss(BenchmarkTask::meanflow) ==
        Approx(loss(BenchmarkTask::meanflow_subset)).epsilon(1e-6));
  CHECK(loss(BenchmarkTask::meanflow) != Approx(loss(BenchmarkTask::flow_matching)).epsilon(1e-9));
  draws.r = draws.t;
  CHECK(loss(BenchmarkTask::meanflow) == Approx(loss(BenchmarkTask::flow_matching)).epsilon(1e-6));

  // The loss from its definition: s / (s + 1e-3), s the mean square over the elements of a sample.
  const Tensor t = expand_dims(draws.t, 1), z = (1.0 - t) * draws.x + t * draws.e;
  const Tensor delta = apply(network, parameters, z, {draws.t, draws.t}) - (draws.e - draws.x),
               s = mean(square(delta), {1});
  CHECK(loss(BenchmarkTask::flow_matching) ==
        Approx(mean(s / (s + 1e-3)).item<float>()).epsilon(1e-5));
}

TEST_CASE("a benchmark step trains, and an evaluation gives samples", "[benchmark]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network = DitConfig{.image_size = 8,
                                          .hidden_size = 16,
                                          .depth = 1,
                                          .num_heads = 2,
                                          .num_classes = 3,
                                          .gelu = Gelu::erf};
  for (const BenchmarkTask task :
       {BenchmarkTask::flow_matching, BenchmarkTask::meanflow, BenchmarkTask::meanflow_subset}) {
    Benchmark benchmark(task, network, 8, device);
    CHECK(benchmark.memory_report().kernels ==
          static_cast<int>(benchmark.program().kernels.size()));
    const float first = benchmark.step().item<float>(), second = benchmark.step().item<float>();
    CHECK(std::isfinite(first));
    CHECK(first != second);
  }
  for (const BenchmarkTask task : {BenchmarkTask::forward, BenchmarkTask::sample}) {
    Benchmark benchmark(task, network, 1, device);
    CHECK(benchmark.step().shape() == Shape{1, 8, 8, 1});
  }
  CHECK_THROWS_AS(Benchmark(BenchmarkTask::sample, network, 0, device), Error);
}

TEST_CASE("a step is compared with another program's, and the tensor that differs is named",
          "[benchmark]") {
  const Device device = cpu({.threads = 1});
  const NetworkConfig network = benchmark_network("mlp2d").config;
  const ScratchFolder folder;
  const std::filesystem::path file = folder.path() / "step.safetensors";
  std::map<std::string, Tensor> tensors;
  const Parameters parameters = initialise(network, random_key(1, device));
  const FlowDraws draws = draws_for(network, 8, device);
  MeanFlowResult result;
  const auto [loss, gradient] = value_and_grad([&](const Parameters& free) {
    result = benchmark_loss(BenchmarkTask::meanflow, network, free, draws);
    return result.loss;
  })(parameters);
  tensors = {{"x", draws.x},  {"e", draws.e},        {"t", draws.t}, {"r", draws.r},
             {"u", result.u}, {"dudt", result.dudt}, {"loss", loss}};
  for (const auto& [name, value] : parameters) tensors["parameters." + name] = value;
  for (const auto& [name, value] : gradient) tensors["gradients." + name] = value;

  save_tensors(file, tensors, {{"network", "mlp2d"}, {"task", "meanflow"}});
  const auto same = compare_step(file, device);
  CHECK(same.size() == 3 + gradient.size());
  CHECK(same.front().relative < 1e-5);

  tensors["gradients.layers.2.weight"] = tensors["gradients.layers.2.weight"] * 1.01;
  save_tensors(file, tensors, {{"network", "mlp2d"}, {"task", "meanflow"}});
  const auto different = compare_step(file, device);
  CHECK(different.front().name == "gradients.layers.2.weight");
  CHECK(different.front().relative == Approx(0.01 / 1.01).epsilon(1e-2));

  tensors["u"] = tensors["u"] * std::nan("");
  save_tensors(file, tensors, {{"network", "mlp2d"}, {"task", "meanflow"}});
  CHECK_FALSE(compare_step(file, device).front().relative <= 1);

  save_tensors(file, tensors, {{"network", "mlp2d"}, {"task", "magic"}});
  CHECK_THROWS_AS(compare_step(file, device), FormatError);
  save_tensors(file, tensors, {{"network", "mlp2d"}});
  CHECK_THROWS_AS(compare_step(file, device), FormatError);
  tensors.erase("gradients.layers.0.bias");
  save_tensors(file, tensors, {{"network", "mlp2d"}, {"task", "meanflow"}});
  CHECK_THROWS_AS(compare_step(file, device), FormatError);
}

TEST_CASE("a profile adds up, the costliest kernels first", "[benchmark]") {
  const Device device = cpu({.threads = 1});
  Benchmark benchmark(BenchmarkTask::flow_matching, MlpConfig{.hidden = {16, 16, 16}}, 8, device);
  std::vector<double> seconds;
  RunOptions options;
  options.kernel_seconds = &seconds;
  benchmark.step(options);
  REQUIRE(seconds.size() == benchmark.program().kernels.size());
  std::iota(seconds.begin(), seconds.end(), 1.0);
  const std::vector<ProfileRow> rows = profile(benchmark.program(), seconds);
  double total = 0, flops = 0;
  std::size_t kernels = 0;
  for (const ProfileRow& row : rows) {
    CHECK(row.seconds <= rows.front().seconds);
    CHECK(row.bytes > 0);
    total += row.seconds, flops += row.flops, kernels += row.kernels.size();
  }
  CHECK(total == Approx(std::accumulate(seconds.begin(), seconds.end(), 0.0)));
  CHECK(kernels == seconds.size());
  CHECK(flops > 0);
  seconds.pop_back();
  CHECK_THROWS_AS(profile(benchmark.program(), seconds), Error);
}

TEST_CASE("the work of attention kernels is counted in products", "[benchmark]") {
  // [2, 3, 5, 4] queries, 7 keys: a product of queries and keys is 2 * 3 * 5 * 7 * 4 multiply-adds.
  const Device device = cpu({.threads = 1});
  constexpr double product = 2.0 * 2 * 3 * 5 * 7 * 4;
  const auto work_of = [](const Program& program) {
    double flops = 0;
    for (const Kernel& kernel : program.kernels) {
      const KernelWork work = describe(program, kernel);
      if (work.kind == WorkKind::attention) flops += work.flops;
    }
    return flops;
  };
  const Tensor q = normal(random_key(1, device), {2, 3, 5, 4}),
               k = normal(random_key(2, device), {2, 3, 7, 4}),
               v = normal(random_key(3, device), {2, 3, 7, 4});
  const auto f = [](const Tensor& q, const Tensor& k, const Tensor& v) {
    return attention(q, k, v);
  };
  CHECK(work_of(compile(f).program(q, k, v)) == 2 * product);
  // As networks have them: slices of one product, whose buffer is neither's shape.
  const Tensor all = normal(random_key(4, device), {2, 7, 3, 3 * 4});
  const auto sliced = compile([](const Tensor& all) {
    const auto part = [&](std::int64_t i) {
      return transpose(slice_axis(all, 3, 4 * i, 4 * i + 4), {0, 2, 1, 3});
    };
    return attention(part(0), part(1), part(2));
  });
  const Program& program = sliced.program(all);
  CHECK(work_of(program) == 2 * (2.0 * 2 * 3 * 7 * 7 * 4));
  for (const Kernel& kernel : program.kernels)
    if (const KernelWork work = describe(program, kernel); work.kind == WorkKind::attention)
      // q, k, v and the result, and a number for each row.
      CHECK(work.bytes == sizeof(float) * (4 * (2 * 3 * 7 * 4) + 2 * 3 * 7));
  const auto dual = compile([&](const Tensor& q, const Tensor& k, const Tensor& v) {
    return jvp(f, std::tuple(q, k, v), std::tuple(q, k, v));
  });
  CHECK(work_of(dual.program(q, k, v)) == 6 * product);
  const auto backward = compile([&](const Tensor& q, const Tensor& k, const Tensor& v) {
    return grad([&](const Tensor& q) { return sum(square(f(q, k, v))); })(q);
  });
  CHECK(work_of(backward.program(q, k, v)) == (2 + 5) * product);
}

TEST_CASE("the roofline is the slower of a kernel's operations and its bytes", "[benchmark]") {
  KernelWork work;
  work.flops = 6e9, work.bytes = 1e9;
  CHECK(Roofline{}.seconds(work) == 0);
  CHECK(Roofline{.flops = 2e9}.seconds(work) == Approx(3));
  CHECK(Roofline{.bytes = 4e9}.seconds(work) == Approx(0.25));
  CHECK(Roofline{.flops = 2e9, .bytes = 4e9}.seconds(work) == Approx(3));
  CHECK(Roofline{.flops = 2e9, .bytes = 0.1e9}.seconds(work) == Approx(10));
}

TEST_CASE("a timeline draws every kernel as long as it took", "[benchmark]") {
  const Device device = cpu({.threads = 1});
  Benchmark benchmark(BenchmarkTask::flow_matching, MlpConfig{.hidden = {16, 16, 16}}, 8, device);
  const std::size_t kernels = benchmark.program().kernels.size();
  std::vector<double> seconds(kernels, 1e-3);
  seconds[1] = 0;
  seconds[2] = 3e-3;
  const Roofline roofline{.flops = 1e9, .bytes = 1e9};
  const std::string svg =
      timeline_svg(benchmark.program(), seconds, roofline, "a step <of> one & another");
  CHECK(xml_fault(svg) == "");
  CHECK(svg.find("a step &lt;of&gt; one &amp; another") != std::string::npos);
  std::size_t bars = 0;
  for (std::size_t at = svg.find("<g>"); at != std::string::npos; at = svg.find("<g>", at + 1))
    ++bars;
  CHECK(bars == kernels);
  const auto width_of = [&](std::size_t kernel) {
    const std::size_t bar = svg.find("<title>kernel " + std::to_string(kernel) + ":"),
                      at = svg.find("width=\"", bar);
    return std::stod(svg.substr(at + 7));
  };
  CHECK(width_of(2) == Approx(3 * width_of(0)).epsilon(0.01));
  CHECK(width_of(1) == 0);

  // The same in numbers; rows without a roofline have none.
  double least = 0;
  for (const ProfileRow& row : profile(benchmark.program(), seconds, roofline))
    least += row.least_seconds;
  double expected = 0;
  for (const Kernel& kernel : benchmark.program().kernels)
    expected += roofline.seconds(describe(benchmark.program(), kernel));
  CHECK(expected > 0);
  CHECK(least == Approx(expected));
  CHECK(profile(benchmark.program(), seconds).front().least_seconds == 0);

  const std::vector<double> nothing(kernels, 0);
  CHECK(xml_fault(timeline_svg(benchmark.program(), nothing, {}, "")) == "");
  seconds.pop_back();
  CHECK_THROWS_AS(timeline_svg(benchmark.program(), seconds, roofline, ""), Error);
}

TEST_CASE("order statistics of times", "[benchmark]") {
  const Timings odd = statistics({5, 1, 3});
  CHECK(odd.median == 3);
  CHECK(odd.lowest == 1);
  CHECK(odd.samples == 3);
  std::vector<double> many(101);
  std::iota(many.rbegin(), many.rend(), 0.0);
  CHECK(statistics(many).p10 == 10);
  CHECK(statistics(many).p90 == 90);
  CHECK(statistics({1, 2}).median == 1.5);
  CHECK_THROWS_AS(statistics({}), Error);

  int calls = 0;
  const Timings timings = time_calls(
      [&] { ++calls; }, {.warm_up = 2, .samples = 1, .chunk_seconds = 0, .max_seconds = 0});
  CHECK(calls == 2 + 1 + 1);  // warm-up, one to size the stretches, one that counts
  CHECK(timings.samples == 1);
}

TEST_CASE("a program bound to its own buffers computes what a call does", "[benchmark]") {
  const Device device = cpu({.threads = 2});
  const auto f = compile([](const Tensor& a, const Tensor& b) { return silu(matmul(a, b)); });
  const Tensor a = normal(random_key(1, device), {5, 7}), b = normal(random_key(2, device), {7, 3});
  BoundProgram bound(f.program(a, b), device);
  const std::vector<float> first = a.to_host<float>(), second = b.to_host<float>();
  std::copy(first.begin(), first.end(), bound.input(0).begin());
  std::copy(second.begin(), second.end(), bound.input(1).begin());
  bound.run();
  CHECK(std::vector<float>(bound.output(0).begin(), bound.output(0).end()) ==
        f(a, b).to_host<float>());
}

TEST_CASE("the rate of multiply-adds is measured on any number of threads", "[benchmark]") {
  for (const int threads : {1, 2}) CHECK(measure_fma_rate(threads, 0.001) > 0);
  CHECK_THROWS_AS(measure_fma_rate(-1, 0.001), Error);
}
