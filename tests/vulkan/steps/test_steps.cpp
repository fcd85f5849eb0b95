// Whole training steps on the software device against the CPU's: loss and every gradient; a run of
// steps; a run that is killed and goes on on the other device.
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "autograd/transforms.h"
#include "backends/cpu/cpu.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/benchmark/benchmark.h"
#include "models/data/points.h"
#include "models/files/npy.h"
#include "models/training/checkpoint.h"
#include "models/training/trainer.h"
#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"
#include "tests/vulkan/run_work.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

struct StepNetwork {
  const char* name;
  NetworkConfig config;
};

// Each kind of layer once or twice, at sizes that a software device compiles within seconds.
const std::vector<StepNetwork> step_networks{
    {"MLP", MlpConfig{.data_dim = 2, .hidden = {32, 32}, .time_features = 8, .time_scale = 1000}},
    {"DiT", DitConfig{.image_size = 8,
                      .channels = 1,
                      .patch_size = 2,
                      .hidden_size = 16,
                      .depth = 1,
                      .num_heads = 2,
                      .num_classes = 3,
                      .frequency_embedding_size = 16}},
    {"U-Net", UnetConfig{.image_size = {8, 8},
                         .channels = 1,
                         .base = 16,
                         .channel_mult = {1, 2},
                         .num_res_blocks = 1,
                         .attention_ds = {2},
                         .norm_groups = 4,
                         .num_heads = 2,
                         .time_scale = 1000,
                         .frequency_embedding_size = 16}},
};

using Values = std::vector<float>;

// The same numbers wherever the step runs.
std::map<std::string, Values> step_parameters(const NetworkConfig& config) {
  const Tensor key = random_key(5, cpu({.threads = 1}));
  std::map<std::string, Values> values;
  std::uint32_t number = 1;
  // A fresh network's last layer is zero, which would hide what lies before it.
  for (const auto& [name, tensor] : initialise(config, fold_in(key, 0)))
    values[name] =
        (tensor + 0.05 * normal(fold_in(key, number++), tensor.shape())).to_host<float>();
  return values;
}

struct MeanFlowStep {
  float loss = 0;
  std::map<std::string, Values> gradients;
};

// A MeanFlow step, with the tangent of all rows.
MeanFlowStep meanflow_step(const NetworkConfig& config, const std::map<std::string, Values>& values,
                           const Device& device) {
  constexpr std::int64_t batch = 4;
  Parameters parameters;
  const auto shapes = parameter_shapes(config);
  for (const auto& [name, numbers] : values)
    parameters[name] = Tensor::from(numbers, shapes.at(name), device);
  const Shape sample = sample_shape(config);
  Dims shape{batch};
  shape.insert(shape.end(), sample.begin(), sample.end());
  Values pixels(static_cast<std::size_t>(batch * sample.elements()));
  for (std::size_t i = 0; i < pixels.size(); ++i)
    pixels[i] = std::sin(static_cast<float>(7 * i % 97));
  const Tensor x = Tensor::from(pixels, Shape(shape), device);
  const Tensor labels = Tensor::from(std::vector<std::int32_t>{0, 1, 2, 0}, {batch}, device);
  const auto step = compile(
      [&](const Parameters& now, const Tensor& data, const Tensor& classes, const Tensor& key) {
        FlowDraws draws = draw({.equal_share = 0.5}, data, {}, 0, key);
        if (num_classes(config) > 0) draws.labels = {classes, {}, num_classes(config)};
        return value_and_grad([&](const Parameters& free) {
          return benchmark_loss(BenchmarkTask::meanflow, config, free, draws).loss;
        })(now);
      });
  const auto [loss, gradients] = step(parameters, x, labels, random_key(9, device));
  MeanFlowStep result{loss.item<float>(), {}};
  for (const auto& [name, gradient] : gradients) result.gradients[name] = gradient.to_host<float>();
  return result;
}

void check_steps(const NetworkConfig& config, const Device& device) {
  constexpr double allowed = 1e-4;  // of the largest element
  const auto values = step_parameters(config);
  const MeanFlowStep want = meanflow_step(config, values, cpu({.threads = 1})),
                     got = meanflow_step(config, values, device);
  CHECK(std::abs(got.loss - want.loss) <= allowed * std::abs(want.loss));
  REQUIRE(got.gradients.size() == want.gradients.size());
  for (const auto& [name, expected] : want.gradients) {
    INFO(name);
    const Values& actual = got.gradients.at(name);
    REQUIRE(actual.size() == expected.size());
    double largest = 0, difference = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
      const double apart = std::abs(static_cast<double>(actual[i]) - expected[i]);
      if (!(apart <= difference)) difference = apart;
    }
    CHECK(largest > 0);
    CHECK(difference <= allowed * largest);
  }
}

// The device as users get it: kernels of short code.
std::optional<Device> device_of_users() {
  const std::optional<int> number = software_device();
  if (!number) return std::nullopt;
  return vulkan({.device = number, .cache = std::filesystem::path()});
}

void check_losses(int steps) {
  const std::optional<Device> device = device_of_users();
  if (!device) return;
  const TrainingConfig config{.network = MlpConfig{.hidden = {32, 32}}, .batch = 64, .seed = 3};
  Trainer here(config, eight_gaussians(), cpu({.threads = 1})),
      there(config, eight_gaussians(), *device);
  for (int step = 0; step < steps; ++step) {
    INFO("step " << step);
    const double want = here.step().loss.item<float>(), got = there.step().loss.item<float>();
    CHECK(std::abs(got - want) <= 0.01 * std::abs(want));
  }
}

// Column `name` of a run's log, by step.
std::map<std::int64_t, double> logged(const std::filesystem::path& folder, std::string_view name) {
  std::istringstream lines(text_of(folder / "log.csv"));
  std::map<std::int64_t, double> values;
  std::size_t column = 0;
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string> cells;
    std::istringstream rest(line);
    for (std::string cell; std::getline(rest, cell, ',');) cells.push_back(cell);
    if (column == 0)
      column = static_cast<std::size_t>(std::ranges::find(cells, name) - cells.begin());
    else if (column < cells.size())
      values[std::stoll(cells[0])] = std::stod(cells[column]);
  }
  return values;
}

}  // namespace

TEST_CASE("a MeanFlow step on Vulkan has the loss and gradients of the CPU's", "[vulkan][steps]") {
  const std::optional<Device> device = device_of_users();
  if (!device) return;
  for (const StepNetwork& network : step_networks) {
    INFO(network.name);
    check_steps(network.config, *device);
  }
}

TEST_CASE("a MeanFlow step in the kernels of a GPU has the loss and gradients of the CPU's",
          "[.][vulkan-long]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  for (const StepNetwork& network : step_networks) {
    INFO(network.name);
    check_steps(network.config, *device);
  }
}

TEST_CASE("a step of a benchmark returns when its result is there, with the times of its kernels",
          "[vulkan][steps][benchmark]") {
  const std::optional<Device> device = software_vulkan();
  if (!device) return;
  const vulkan_backend::Queue& queue = vulkan_backend::logical_device(*device)->queue();
  for (const BenchmarkTask task : {BenchmarkTask::flow_matching, BenchmarkTask::forward}) {
    Benchmark benchmark(task, step_networks[0].config, 4, *device);
    for (int i = 0; i < 3; ++i) {
      std::vector<double> seconds;
      RunOptions options;
      if (i == 2) options.kernel_seconds = &seconds;
      benchmark.step(options);
      // (Neither asks the device.)
      CHECK(queue.done() == queue.submitted());
      if (i == 2) CHECK(*std::max_element(seconds.begin(), seconds.end()) > 0);
    }
  }
}

TEST_CASE("40 training steps on Vulkan have the losses of the CPU's", "[vulkan][steps]") {
  check_losses(40);
}

TEST_CASE("200 training steps on Vulkan have the losses of the CPU's", "[.][vulkan-long]") {
  check_losses(200);
}

TEST_CASE("a run that is killed on one device goes on on the other", "[vulkan][steps][kill]") {
  const std::optional<int> number = software_device();
  if (!number) return;
  const std::string software = "vulkan:" + std::to_string(*number);
  const ScratchFolder folder;
  const std::string run =
      "train --data 8gaussians --width 16 --depth 2 --batch 256 --quiet "
      "--schedule constant ";
  for (const bool first_on_cpu : {true, false}) {
    const std::string first = first_on_cpu ? "cpu:1" : software,
                      second = first_on_cpu ? software : "cpu:1",
                      name = first_on_cpu ? "from-cpu" : "from-vulkan";
    INFO(first << ", then " << second);
    const std::filesystem::path checkpoint = folder / name / "checkpoint.safetensors";
    {
      Process process({"train",      "--data",   "8gaussians", "--width", "16",
                       "--depth",    "2",        "--batch",    "256",     "--quiet",
                       "--schedule", "constant", "--steps",    "1000000", "--checkpoint-every",
                       "5steps",     "--device", first,        "--out",   name},
                      folder.path(), [] { setenv("FLUXION_VULKAN_CACHE", "", 1); });
      wait_for([&] { return std::filesystem::exists(checkpoint) || !process.running(); });
      process.signal(SIGKILL);
      const int status = process.wait();
      INFO(text_of(folder / "stderr"));
      REQUIRE(WIFSIGNALED(status));
    }
    const std::int64_t before = read_checkpoint_info(checkpoint).step,
                       steps = before / 10 * 10 + 30;
    const ProgramRun more = run_program("train --resume " + name + " --quiet --device " + second +
                                            " --steps " + std::to_string(steps),
                                        folder.path(), "FLUXION_VULKAN_CACHE=");
    INFO(more.error);
    REQUIRE(more.code == 0);
    CHECK(read_checkpoint_info(checkpoint).step == steps);
    REQUIRE(run_program(
                run + "--device cpu:1 --out whole-" + name + " --steps " + std::to_string(steps),
                folder.path())
                .code == 0);
    const auto want = logged(folder / ("whole-" + name), "error"),
               got = logged(folder / name, "error");
    REQUIRE(want.size() >= 3);
    CHECK(got.size() == want.size());
    for (const auto& [step, error] : want) {
      INFO("step " << step << " of " << steps << ", killed after " << before);
      REQUIRE(got.contains(step));
      CHECK(std::abs(got.at(step) - error) <= 0.01 * std::abs(error));
    }
  }
}

TEST_CASE("models are diagnosed and drawn on Vulkan, which lacks f64, as on the CPU",
          "[vulkan][steps]") {
  const std::optional<int> number = software_device();
  if (!number) return;
  const ScratchFolder folder;
  const auto run = [&](const std::string& command) {
    const ProgramRun result = run_program(command, folder.path(), "FLUXION_VULKAN_CACHE=");
    INFO(command << "\n" << result.error);
    REQUIRE(result.code == 0);
    return result.out;
  };
  run("train --data 8gaussians --method flow-matching --width 16 --depth 1 --frequencies 0 "
      "--batch 64 --steps 50 --quiet --device cpu:1 --out run");
  const std::string model = " --model run/model.safetensors --device ";
  const std::vector<std::string> devices{"cpu:1", "vulkan:" + std::to_string(*number)};
  std::vector<nlohmann::json> measured;
  for (const std::string& device : devices)
    measured.push_back(
        nlohmann::json::parse(
            run("eval --json --metrics conservativity,dimension,elbo --count 8" + model + device))
            .at("metrics"));
  CHECK(measured[0].size() == 3 + 6 + 2);
  for (const auto& [name, row] : measured[0].items()) {
    INFO(name);
    CHECK(measured[1].at(name).at("value").get<double>() ==
          Approx(row.at("value").get<double>()).epsilon(1e-3).margin(1e-6));
  }
  for (const std::string how :
       {"--head-start 0.2 --sampler heun --steps 2", "--grid best --sampler euler --steps 2"}) {
    std::vector<std::vector<float>> drawn;
    for (const std::string& device : devices) {
      run("sample " + how + " --count 8 --npy x.npy" + model + device);
      drawn.push_back(read_npy(folder / "x.npy").values<float>());
    }
    INFO(how);
    REQUIRE(drawn[0].size() == 16);
    for (std::size_t i = 0; i < 16; ++i) CHECK(drawn[1][i] == Approx(drawn[0][i]).margin(1e-3));
  }
}
