#include "models/benchmark/comparison.h"

#include <algorithm>
#include <array>
#include <limits>

#include "autograd/transforms.h"
#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "models/benchmark/benchmark.h"
#include "models/files/safetensors.h"

namespace fluxion {
namespace {

constexpr std::array<std::pair<const char*, BenchmarkTask>, 3> tasks = {
    {{"flow_matching", BenchmarkTask::flow_matching},
     {"meanflow", BenchmarkTask::meanflow},
     {"meanflow_subset", BenchmarkTask::meanflow_subset}}};

BenchmarkTask task_from(const std::string& name) {
  for (const auto& [candidate, task] : tasks)
    if (name == candidate) return task;
  throw FormatError("comparison: task '" + name +
                    "' is not one of 'flow_matching', 'meanflow', 'meanflow_subset'");
}

// The file's contents by name, with errors that say what is missing or unlike.
struct Contents {
  std::string file;
  TensorFile data;

  const std::string& metadata(const std::string& name) const {
    const auto found = data.metadata.find(name);
    if (found == data.metadata.end())
      throw FormatError(file + ": there is no metadata '" + name + "'");
    return found->second;
  }
  const Tensor& tensor(const std::string& name) const {
    const auto found = data.tensors.find(name);
    if (found == data.tensors.end())
      throw FormatError(file + ": there is no tensor '" + name + "'");
    return found->second;
  }
  const Tensor& tensor(const std::string& name, const Shape& shape) const {
    const Tensor& found = tensor(name);
    if (found.shape() != shape)
      throw FormatError(file + ": tensor '" + name + "' is " + to_string(found.type()) +
                        ", not of shape " + to_string(shape));
    return found;
  }
};

struct Outputs {
  Tensor u, dudt, loss;
  static auto members(auto& self) { return std::tie(self.u, self.dudt, self.loss); }
};

}  // namespace

std::vector<TensorDifference> compare_step(const std::filesystem::path& file,
                                           const Device& device) {
  const Contents contents{file.string(), load_tensors(file, device)};
  const NetworkConfig network = benchmark_network(contents.metadata("network")).config;
  const BenchmarkTask task = task_from(contents.metadata("task"));

  FlowDraws draws;
  draws.x = contents.tensor("x");
  if (draws.x.rank() < 1 || draws.x.size(0) < 4)
    throw FormatError(contents.file + ": x is " + to_string(draws.x.type()) +
                      ", not a batch of 4 or more");
  const Shape batch{draws.x.size(0)};
  draws.e = contents.tensor("e", draws.x.shape());
  draws.t = contents.tensor("t", batch);
  draws.r = contents.tensor("r", batch);
  if (num_classes(network) > 0)
    draws.labels = {contents.tensor("labels", batch), {}, num_classes(network)};
  Parameters parameters;
  for (const auto& [name, shape] : parameter_shapes(network))
    parameters[name] = contents.tensor("parameters." + name, shape);

  // Compiled, as steps are.
  const auto step = compile([&](const Parameters& at) {
    const auto loss = [&](const Parameters& free) {
      const MeanFlowResult result = benchmark_loss(task, network, free, draws);
      return std::pair(result.loss, Outputs{result.u, result.dudt, result.loss});
    };
    const auto [value, gradient] = value_and_grad(loss)(at);
    return std::pair(value.second, gradient);
  });
  const auto [outputs, gradient] = step(parameters);

  std::vector<TensorDifference> differences;
  const auto compare = [&](const std::string& name, const Tensor& ours) {
    const Tensor& theirs = contents.tensor(name, ours.shape());
    const double size = max(abs(theirs)).to(DType::f64).item<double>(),
                 difference = max(abs(ours - theirs)).to(DType::f64).item<double>();
    differences.push_back({name, difference == 0 ? 0
                                 : size > 0      ? difference / size
                                                 : std::numeric_limits<double>::infinity()});
  };
  compare("u", outputs.u);
  if (task != BenchmarkTask::flow_matching) compare("dudt", outputs.dudt);
  compare("loss", outputs.loss);
  for (const auto& [name, tensor] : gradient) compare("gradients." + name, tensor);
  // What is no number sorts first.
  std::stable_sort(differences.begin(), differences.end(),
                   [](const TensorDifference& a, const TensorDifference& b) {
                     return !(a.relative <= b.relative) && b.relative == b.relative;
                   });
  return differences;
}

}  // namespace fluxion
