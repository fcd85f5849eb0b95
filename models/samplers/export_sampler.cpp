#include "models/samplers/export_sampler.h"

#include <algorithm>
#include <map>

#include "engine/compile.h"
#include "engine/error.h"
#include "engine/graph/ops.h"
#include "models/samplers/sampler.h"

namespace fluxion {
namespace {

// Traces the graphs of a sampler for one size of batch after another.
class SamplerTracer {
 public:
  SamplerTracer(const Model& model, const SamplerOptions& given, bool free_guidance)
      : model_(model),
        options_(given),
        stepper_(make_stepper(given)),
        free_guidance_(free_guidance) {
    for (std::size_t i = 0; i + 1 < stepper_.grid.size(); ++i) {
      Stepper::Call call = stepper_.call(i);
      if (free_guidance_) call.numbers.push_back(options_.guidance);
      // Forms are numbered in the order of their first steps: short samplers have not all.
      const auto known = std::find(forms_.begin(), forms_.end(), call.form);
      steps_.push_back({static_cast<std::int32_t>(known - forms_.begin()), call.numbers});
      if (known != forms_.end()) continue;
      forms_.push_back(call.form);
      numbers_.push_back(call.numbers.size());
    }
  }

  void fill(StoredSampler& sampler) {
    const auto add = [&](std::vector<StoredForm>& forms, std::size_t at) {
      const BatchedGraph graph =
          batched([&](std::int64_t batch) { return traces_of(batch).at(at).graph; });
      forms.push_back({graph, traces_of(2).at(at).draws});
    };
    std::size_t at = 0;
    if (stepper_.start) add(sampler.start, at++);
    for (std::size_t form = 0; form < numbers_.size(); ++form) add(sampler.forms, at++);
    sampler.scale = stepper_.grid.front().sigma;
    sampler.steps = steps_;
    if (free_guidance_) sampler.guidance = options_.guidance;
    sampler.evaluations = stepper_.start ? traces_of(2).front().evaluations : 0;
    if (free_guidance_ && sampler.evaluations > 0)
      throw Error("export: " + to_string(options_.kind) +
                  " asks its network before the first step, which no later choice of guidance "
                  "reaches; choose another sampler");
    for (const StoredStep& step : steps_)
      sampler.evaluations +=
          traces_of(2).at(static_cast<std::size_t>(step.form) + sampler.start.size()).evaluations;
  }

 private:
  struct Trace {
    StoredGraph graph;
    std::vector<TensorType> memory;  // that it returns
    std::vector<std::uint32_t> draws;
    double evaluations = 0;
  };
  // What a graph is given besides the weights and z.
  struct Given {
    std::vector<TensorType> memory;
    std::size_t numbers = 0;
    std::vector<std::uint32_t> draws;
  };
  using Body = std::function<StepOutput(const LabelledPredictor& network, const StepInput& input)>;

  Device device() const { return model_.parameters.begin()->second.device(); }

  // The start, if there is one, and each form as the first step that has it calls it.
  const std::vector<Trace>& traces_of(std::int64_t batch) {
    const auto known = traces_.find(batch);
    if (known != traces_.end()) return known->second;
    std::vector<Trace> traces;
    std::vector<TensorType> memory;
    if (stepper_.start) {
      const auto body = [&](const LabelledPredictor& network, const StepInput& input) {
        // Where a sampler begins in noise alone, its memory needs no other.
        return StepOutput{input.z, stepper_.start(network, input.z, Tensor())};
      };
      traces.push_back(trace("start", batch, {}, false, body));
      memory = traces.back().memory;
    }
    const std::size_t first = traces.size();
    traces.resize(first + numbers_.size());
    std::vector<bool> traced(numbers_.size(), false);
    for (const StoredStep& step : steps_) {
      const auto form = static_cast<std::size_t>(step.form);
      if (!traced[form]) {
        const auto body = [&](const LabelledPredictor& network, const StepInput& input) {
          return stepper_.step(forms_[form], network, input);
        };
        Given given{memory, numbers_[form], {}};
        // A first trace tells what it draws.
        given.draws = trace("draws", batch, given, true, body).draws;
        traces[first + form] = trace("form " + std::to_string(form), batch, given, true, body);
        traced[form] = true;
      }
      memory = traces[first + form].memory;
    }
    return traces_.emplace(batch, std::move(traces)).first->second;
  }

  Trace trace(const std::string& name, std::int64_t batch, const Given& given, bool returns_z,
              const Body& body) const {
    const NetworkConfig& network = model_.info.network;
    std::vector<Tensor> arguments;
    std::vector<StoredValue> names;
    const auto add = [&](std::string argument, const TensorType& type) {
      arguments.push_back(full(type.shape, 0, type.dtype, device()));
      names.push_back({std::move(argument)});
    };
    const TensorType z(with_leading_axis(batch, sample_shape(network)), DType::f32);
    for (const auto& [key, value] : model_.parameters) {
      arguments.push_back(value);
      names.push_back({key});
    }
    add("z", z);
    for (std::size_t i = 0; i < given.memory.size(); ++i)
      add("memory " + std::to_string(i), given.memory[i]);
    for (std::size_t i = 0; i < given.numbers; ++i)
      add("number " + std::to_string(i), TensorType({}, DType::f32));
    for (const std::uint32_t draw : given.draws) add("noise " + std::to_string(draw), z);
    const bool labelled = num_classes(network) > 0;
    if (labelled) add("labels", TensorType({batch}, DType::i32));

    const TracedParameters traced(arguments);
    auto next = traced.tensors().begin();
    Parameters parameters = model_.parameters;
    for (auto& [key, value] : parameters) value = *next++;
    StepInput input;
    input.z = *next++;
    for (std::size_t i = 0; i < given.memory.size(); ++i) input.memory.push_back(*next++);
    for (std::size_t i = 0; i < given.numbers; ++i) input.numbers.push_back(*next++);
    Tensor guidance;
    if (free_guidance_ && !input.numbers.empty()) {
      guidance = input.numbers.back();
      input.numbers.pop_back();
    }
    const std::vector<Tensor> noise(next, next + std::ssize(given.draws));
    const Tensor labels = labelled ? traced.tensors().back() : Tensor();

    Trace result;
    input.noise = [&](std::uint32_t draw) {
      const auto known = std::find(given.draws.begin(), given.draws.end(), draw);
      if (known != given.draws.end())
        return noise[static_cast<std::size_t>(known - given.draws.begin())];
      result.draws.push_back(draw);
      return zeros_like(input.z);
    };
    std::int64_t rows = 0;
    const Velocity counted = [&rows, run = bind_parameters(network, parameters)](
                                 const Tensor& at, const Times& times, const Tensor& classes) {
      rows += at.size(0);
      return run(at, times, classes);
    };
    const Predictor predictor = stepped(
        {wrapped(options_.wrapping, counted, options_.path), options_.path, options_.prediction},
        options_, stepper_, num_classes(network), guidance);
    const StepOutput output = body(LabelledPredictor{predictor, labels}, input);
    std::vector<Tensor> results = output.memory;
    if (returns_z) results.insert(results.begin(), output.z);
    std::vector<StoredValue> result_names;
    for (std::size_t i = 0; i < results.size(); ++i)
      result_names.push_back({returns_z ? (i == 0 ? "z" : "memory " + std::to_string(i - 1))
                                        : "memory " + std::to_string(i)});
    result.graph = store(name, names, result_names, traced.tensors(), results);
    for (const Tensor& memory : output.memory) result.memory.push_back(memory.type());
    if (result.draws.empty()) result.draws = given.draws;
    result.evaluations = static_cast<double>(rows) / static_cast<double>(batch);
    return result;
  }

  const Model& model_;
  const SamplerOptions options_;
  const Stepper stepper_;
  const bool free_guidance_;
  std::vector<StoredStep> steps_;
  std::vector<int> forms_;            // the stepper's numbers of them
  std::vector<std::size_t> numbers_;  // of the steps of each form
  std::map<std::int64_t, std::vector<Trace>> traces_;
};

}  // namespace

StoredSampler export_sampler(const Model& model, const SamplerOptions& options,
                             WeightEncoding encoding, bool free_guidance) {
  check(options);
  const ModelInfo& info = model.info;
  if (free_guidance) check_guidance(info, /*scale=*/0);
  if (options.grid == GridKind::best && options.times.empty()) {
    const Tensor& any = model.parameters.begin()->second;
    const BestSteps best = find_best_steps(
        options, predictor(info, bind_parameters(info.network, model.parameters)),
        sample_shape(info.network), num_classes(info.network), any.dtype(), any.device());
    return export_sampler(model, with_times(options, best.grid), encoding, free_guidance);
  }
  if (options.begin > 0 && !options.head_start)
    throw Error("export: a sampler file begins in noise, not with data");
  if (options.head_start)
    throw Error("export: a head start is made of data, which a sampler file does not hold");
  if (!options.source.empty())
    throw Error("export: the model begins with points of " + options.source +
                ", and a sampler file draws standard normal noise");
  if (options.kind == SamplerKind::ode_dopri5)
    throw Error(
        "export: dopri5 chooses its steps as it goes, and a file holds a fixed list of steps; "
        "choose rk4, heun or another sampler");
  if (options.kind == SamplerKind::predictor_corrector && options.measured_norms)
    throw Error("export: norms that are measured over a batch would tie samples to their batch");
  StoredSampler sampler;
  sampler.name = data_name(info);
  sampler.sample_shape = sample_shape(info.network);
  sampler.classes = num_classes(info.network);
  sampler.class_names = info.class_names;
  sampler.usual_classes = trained_classes(info);
  sampler.open_class = sampler.classes > 0 && info.open_class;
  SamplerTracer(model, options, free_guidance).fill(sampler);

  std::uint64_t total = 0;
  for (const auto& [key, value] : model.parameters)
    total += encoded_bytes(static_cast<std::uint64_t>(value.shape().elements()), encoding);
  const auto storage = std::make_shared<std::vector<std::byte>>();
  storage->reserve(static_cast<std::size_t>(total));
  std::vector<std::size_t> ends;
  for (const auto& [key, value] : model.parameters) {
    try {
      const std::vector<std::byte> bytes = encoded(value.to_host<float>(), encoding);
      storage->insert(storage->end(), bytes.begin(), bytes.end());
    } catch (const Error& error) {
      throw Error("export: parameter '" + key + "': " + error.what());
    }
    ends.push_back(storage->size());
  }
  std::size_t begin = 0, at = 0;
  for (const auto& [key, value] : model.parameters) {
    const std::size_t end = ends[at++];
    sampler.weights.push_back(
        {key, value.shape(), encoding, std::span(*storage).subspan(begin, end - begin)});
    begin = end;
  }
  sampler.storage = storage;
  check(sampler);
  return sampler;
}

}  // namespace fluxion
