// eval and compile: where graphs meet plans.
#include <algorithm>
#include <set>
#include <unordered_map>

#include "engine/compile.h"
#include "engine/graph/ops.h"
#include "engine/graph/walk.h"
#include "engine/plan_cache.h"

namespace fluxion {

namespace {

std::vector<std::shared_ptr<Buffer>> buffers_of(const std::vector<Tensor>& tensors) {
  std::vector<std::shared_ptr<Buffer>> buffers;
  for (const Tensor& tensor : tensors) {
    std::shared_ptr<Buffer> buffer = tensor.node()->value(tensor.output());
    if (!buffer) throw Error("eval: an input has no value; this is an engine error");
    buffers.push_back(std::move(buffer));
  }
  return buffers;
}

// Inner nodes that somebody outside of the walked graph holds: their values will be asked for, so
// they are computed along.
std::vector<Tensor> held_outside(const std::vector<WalkedNode>& order) {
  std::unordered_map<const Node*, long> internal;  // handles that the graph itself and the walk own
  for (const WalkedNode& walked : order)
    for (const Tensor& input : walked.inputs) internal[input.node().get()] += 2;
  std::vector<Tensor> held;
  for (const WalkedNode& walked : order) {
    if (walked.inputs.empty() || walked.node.use_count() - 1 <= internal[walked.node.get()])
      continue;
    for (std::size_t output = 0; output < walked.node->outputs.size(); ++output)
      held.emplace_back(walked.node, static_cast<int>(output));
  }
  return held;
}

}  // namespace

void eval(std::span<const Tensor> tensors, const EvalOptions& options) {
  std::vector<Tensor> outputs;
  for (const Tensor& tensor : tensors) {
    if (!tensor) throw Error("eval: a handle holds no tensor");
    if (!tensor.node()->value(tensor.output())) outputs.push_back(tensor);
    if (tensor.device() != tensors.front().device())
      throw DeviceError("eval: the tensors live on different devices");
  }
  if (outputs.empty()) return;
  {
    std::set<std::pair<const Node*, int>> wanted;
    for (const Tensor& output : outputs) wanted.insert({output.node().get(), output.output()});
    const auto order = walk(outputs, [](const Node& node) { return !node.evaluated(); });
    for (Tensor& held : held_outside(order))
      if (!held.node()->value(held.output()) &&
          wanted.insert({held.node().get(), held.output()}).second)
        outputs.push_back(std::move(held));
  }
  const plan::Canonical canonical = plan::canonicalise({}, outputs);
  const Device& device = outputs.front().device();
  const auto plan = device.plans().find_or_make(canonical.graph, device.backend());
  const auto values = plan->run(buffers_of(canonical.inputs), canonical.scalars, options.run);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    outputs[i].node()->publish(outputs[i].output(), values[i]);
}

// ---- compile

TracedParameters::TracedParameters(const std::vector<Tensor>& arguments)
    : scope_(std::make_shared<TraceScope>()) {
  for (const Tensor& argument : arguments) {
    tensors_.push_back(make_leaf(Op::parameter,
                                 IndexAttributes{static_cast<std::int64_t>(tensors_.size())},
                                 argument.type(), argument.device()));
    tensors_.back().node()->set_scope(scope_);
  }
}

TracedParameters::~TracedParameters() { scope_->live.store(false); }

bool is_traced(const std::vector<Tensor>& arguments) {
  return std::any_of(arguments.begin(), arguments.end(), [](const Tensor& argument) {
    return argument && argument.node()->live_scope() != nullptr;
  });
}

std::string to_string(const MemoryReport& report) {
  const auto mib = [](std::size_t bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f MiB", static_cast<double>(bytes) / (1 << 20));
    return std::string(text);
  };
  return "peak " + mib(report.peak_bytes()) + ": inputs " + mib(report.input_bytes) + ", outputs " +
         mib(report.output_bytes) + " of which " + mib(report.donated_bytes) +
         " take over inputs, workspace " + mib(report.workspace_bytes) + " (arena " +
         mib(report.arena_bytes) + "), " + std::to_string(report.kernels) + " kernels";
}

struct CompiledTrace::State {
  Device device;
  std::vector<TensorType> parameter_types;
  std::vector<bool> donated;
  std::vector<TensorType> output_types;
  std::vector<Tensor> captured;  // evaluated tensors that the function used beside its arguments
  std::vector<double> scalars;
  std::unique_ptr<ExecutablePlan> plan;
};

namespace {

// A random op whose key is the same at every call draws the same numbers at every call: never what
// is meant.
void require_random_keys(const plan::Graph& graph, std::size_t parameters) {
  std::vector<bool> varies(graph.nodes.size(), false);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const plan::GraphNode& node = graph.nodes[i];
    if (node.op == Op::parameter)
      varies[i] =
          static_cast<std::size_t>(std::get<IndexAttributes>(node.attributes).index) < parameters;
    for (const plan::Value input : node.inputs)
      varies[i] = varies[i] || varies[static_cast<std::size_t>(input.node)];
    if (node.op == Op::random_bits && !varies[i])
      throw Error(
          "compile: a random op has a constant key, so every call would draw the same numbers; "
          "make the key an argument of the compiled function");
  }
}

}  // namespace

CompiledTrace::CompiledTrace(std::vector<Tensor> parameters, std::vector<bool> donated,
                             std::vector<Tensor> outputs)
    : state_(std::make_unique<State>()) {
  if (outputs.empty()) throw Error("compile: the function returned no tensor");
  state_->device = outputs.front().device();
  for (const Tensor& parameter : parameters) state_->parameter_types.push_back(parameter.type());
  for (const Tensor& output : outputs) state_->output_types.push_back(output.type());
  state_->donated = donated;
  plan::Canonical canonical = plan::canonicalise(parameters, outputs);
  require_random_keys(canonical.graph, parameters.size());
  for (std::size_t i = 0; i < donated.size(); ++i)
    if (donated[i]) canonical.graph.donated.push_back(static_cast<std::int32_t>(i));
  state_->captured.assign(canonical.inputs.begin() + static_cast<std::ptrdiff_t>(parameters.size()),
                          canonical.inputs.end());
  state_->scalars = canonical.scalars;
  state_->plan =
      std::make_unique<ExecutablePlan>(std::move(canonical.graph), state_->device.backend());
}

CompiledTrace::~CompiledTrace() = default;

std::vector<Tensor> CompiledTrace::run(const std::vector<Tensor>& arguments,
                                       const RunOptions& options) const {
  const State& state = *state_;
  if (arguments.size() != state.parameter_types.size())
    throw Error("compile: wrong number of argument tensors; this is an engine error");
  eval(arguments);
  std::vector<std::shared_ptr<Buffer>> inputs = buffers_of(arguments);
  for (const auto& buffer : buffers_of(state.captured)) inputs.push_back(buffer);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (!state.donated[i]) continue;
    inputs[i].reset();
    inputs[i] = arguments[i].node()->donate(arguments[i].output());
  }
  std::vector<std::shared_ptr<Buffer>> values;
  try {
    values = state.plan->run(inputs, state.scalars, options);
  } catch (...) {
    // Nothing was overwritten: give the state back.
    for (std::size_t i = 0; i < arguments.size(); ++i)
      if (state.donated[i])
        arguments[i].node()->take_back(arguments[i].output(), std::move(inputs[i]));
    throw;
  }
  std::vector<Tensor> results;
  for (std::size_t i = 0; i < values.size(); ++i)
    results.push_back(Tensor::from_buffer(values[i], state.output_types[i], state.device));
  return results;
}

MemoryReport CompiledTrace::memory_report() const { return state_->plan->memory_report(); }
const Program& CompiledTrace::program() const { return state_->plan->program(); }

std::string describe_retrace(const std::vector<TensorType>& before,
                             const std::vector<TensorType>& now, bool same_statics,
                             bool same_device) {
  if (before.size() != now.size())
    return std::to_string(now.size()) + " argument tensors, were " + std::to_string(before.size());
  for (std::size_t i = 0; i < now.size(); ++i)
    if (!(before[i] == now[i]))
      return "argument tensor " + std::to_string(i) + ": " + to_string(now[i]) + " was " +
             to_string(before[i]);
  if (!same_device) return "another device";
  if (!same_statics) return "a static argument changed";
  return "no signature among those known";
}

}  // namespace fluxion
