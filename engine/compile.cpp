#include "engine/compile.h"

#include <algorithm>

#include "engine/graph/op_names.h"
#include "engine/graph/walk.h"
#include "engine/number_text.h"
#include "engine/plan_cache.h"

namespace fluxion {

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

bool TracedParameters::others_reach(const std::vector<Tensor>& outputs) const {
  // A node may depend on several scopes and knows one, so the leaves decide.
  bool reach = false;
  walk(outputs, [&](const Node& node) {
    const std::shared_ptr<TraceScope> scope = node.live_scope();
    reach = reach || (scope && scope != scope_);
    return scope && !reach;
  });
  return reach;
}

bool is_traced(const std::vector<Tensor>& arguments) {
  return std::any_of(arguments.begin(), arguments.end(), [](const Tensor& argument) {
    return argument && argument.node()->live_scope() != nullptr;
  });
}

std::string to_string(const MemoryReport& report) {
  const auto mib = [](std::size_t bytes) {
    return fixed_text(static_cast<double>(bytes) / (1 << 20), 2) + " MiB";
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
  std::vector<Tensor> captured;  // evaluated tensors that the function used besides its arguments
  std::vector<Tensor> captured_in_order;
  std::vector<double> scalars;
  std::shared_ptr<const ExecutablePlan> plan;
};

namespace {

// Orders handles by identity, to find equal ones.
bool before(const Tensor& a, const Tensor& b) {
  return std::pair(a.node().get(), a.output()) < std::pair(b.node().get(), b.output());
}

// Throws if a random op has a constant key: every call would draw the same numbers, which is never
// intended.
void require_random_keys(const plan::Graph& graph, std::size_t parameters) {
  plan::Indexed<plan::NodeId, bool> varies(graph.nodes.size());
  for (const plan::NodeId i : graph.nodes.ids()) {
    const plan::GraphNode& node = graph[i];
    if (node.op == Op::parameter)
      varies[i] =
          static_cast<std::size_t>(std::get<IndexAttributes>(node.attributes).index) < parameters;
    for (const plan::Value input : node.inputs) varies[i] = varies[i] || varies[input.node];
    if (node.op == Op::random_bits && !varies[i])
      throw Error(
          "compile: a random op has a constant key, so every call would draw the same numbers; "
          "make the key an argument of the compiled function, or eval() numbers that were drawn "
          "before it");
  }
}

}  // namespace

CompiledTrace::CompiledTrace(std::vector<Tensor> parameters, std::vector<bool> donated,
                             std::vector<Tensor> outputs)
    : state_(std::make_unique<State>()) {
  if (outputs.empty()) throw Error("compile: the function returned no tensor");
  state_->device = outputs.front().device();
  for (const Tensor& parameter : parameters) state_->parameter_types.push_back(parameter.type());
  for (const Tensor& output : outputs) {
    state_->output_types.push_back(output.type());
    if (output.device() != state_->device)
      throw DeviceError("compile: the function returned tensors of different devices, " +
                        state_->device.name() + " and " + output.device().name() +
                        "; a compiled function runs on one device");
  }
  state_->donated = donated;
  plan::Canonical canonical = plan::canonicalise(parameters, outputs);
  require_random_keys(canonical.graph, parameters.size());
  for (std::size_t i = 0; i < donated.size(); ++i)
    if (donated[i]) canonical.graph.donated.push_back(static_cast<std::int32_t>(i));
  state_->captured.assign(canonical.inputs.begin() + static_cast<std::ptrdiff_t>(parameters.size()),
                          canonical.inputs.end());
  state_->captured_in_order = state_->captured;
  std::sort(state_->captured_in_order.begin(), state_->captured_in_order.end(), before);
  state_->scalars = canonical.scalars;
  state_->plan =
      state_->device.plans().find_or_make(std::move(canonical.graph), state_->device.backend());
}

CompiledTrace::~CompiledTrace() = default;

// ---- calls

namespace {

void require_one_device(const std::vector<Tensor>& arguments, const Device& device) {
  for (std::size_t i = 0; i < arguments.size(); ++i)
    if (arguments[i].device() != device)
      throw DeviceError("compile: argument tensor " + std::to_string(i) + " (" +
                        to_string(arguments[i].type()) + ") lives on " +
                        arguments[i].device().name() + ", the function runs on " + device.name() +
                        "; move it with Tensor::to");
}

}  // namespace

struct CompiledCall::State {
  // The donated arguments of one call: all are taken or none, and a call that does not finish gives
  // them back.
  class Donation {
   public:
    // Moves the donated values into `buffers`, which has a shared copy for each argument already. A
    // tensor that is several arguments is taken once: the other copy is a second owner, so nothing
    // overwrites it.
    void take(const std::vector<Tensor>& arguments, const std::vector<bool>& donated,
              std::vector<std::shared_ptr<Buffer>>& buffers) {
      std::vector<Argument> wanted;
      for (std::size_t i = 0; i < donated.size(); ++i)
        if (donated[i]) wanted.push_back({arguments[i], i});
      std::stable_sort(wanted.begin(), wanted.end(), [](const Argument& a, const Argument& b) {
        return before(a.tensor, b.tensor);
      });
      const auto same = [](const Argument& a, const Argument& b) {
        return a.tensor.same_as(b.tensor);
      };
      wanted.erase(std::unique(wanted.begin(), wanted.end(), same), wanted.end());
      taken_.reserve(wanted.size());
      try {
        for (Argument& each : wanted) {
          buffers[each.index] = each.tensor.node()->donate(each.tensor.output(),
                                                           static_cast<std::int32_t>(each.index));
          taken_.push_back(std::move(each));
        }
      } catch (...) {
        give_back(buffers);
        throw;
      }
    }

    void give_back(const std::vector<std::shared_ptr<Buffer>>& buffers) noexcept {
      for (const Argument& each : taken_)
        each.tensor.node()->take_back(each.tensor.output(), buffers[each.index]);
      taken_.clear();
    }

    // The call failed after it had overwritten values.
    void lose() noexcept {
      for (const Argument& each : taken_) each.tensor.node()->lose(each.tensor.output());
      taken_.clear();
    }

    // The call succeeded: the values are used up.
    void use_up() noexcept { taken_.clear(); }

   private:
    struct Argument {
      Tensor tensor;
      std::size_t index;
    };
    std::vector<Argument> taken_;
  };

  ~State() { donation.give_back(call.inputs()); }
  Donation donation;
  BoundCall call;
  std::vector<Tensor> results;
};

CompiledCall::CompiledCall() : state_(std::make_unique<State>()) {}
CompiledCall::CompiledCall(CompiledCall&&) noexcept = default;
CompiledCall::~CompiledCall() = default;

const std::vector<Tensor>& CompiledCall::results() const { return state_->results; }

void CompiledCall::run(const RunOptions& options) {
  try {
    state_->call.run(options);
  } catch (const Error& error) {
    if (error.aftermath() == Aftermath::nothing_written) {
      state_->donation.give_back(state_->call.inputs());
    } else {
      state_->donation.lose();
    }
    throw;
  } catch (...) {  // memory that ran out once more, for the words of an error
    state_->donation.lose();
    throw;
  }
  state_->donation.use_up();
}

CompiledCall CompiledTrace::prepare(const std::vector<Tensor>& arguments) const {
  const State& state = *state_;
  try {
    if (arguments.size() != state.parameter_types.size())
      throw Error("compile: wrong number of argument tensors; this is an engine error");
    require_one_device(arguments, state.device);
    for (std::size_t i = 0; i < arguments.size(); ++i)
      if (state.donated[i] &&
          std::binary_search(state.captured_in_order.begin(), state.captured_in_order.end(),
                             arguments[i], before))
        throw Error("compile: argument tensor " + std::to_string(i) + " (" +
                    to_string(arguments[i].type()) +
                    ") is donated, and the function holds the same tensor beside its arguments, so "
                    "it could not be called again; pass it as an argument of its own, or leave it "
                    "out of those donated");
    eval(arguments);
    std::vector<std::shared_ptr<Buffer>> inputs = buffers_of(arguments);
    for (auto& buffer : buffers_of(state.captured)) inputs.push_back(std::move(buffer));

    CompiledCall call;
    CompiledCall::State& made = *call.state_;
    made.call = state.plan->bind(std::move(inputs), state.scalars);
    made.donation.take(arguments, state.donated, made.call.inputs());
    made.call.allocate(state.device.backend());
    for (std::size_t i = 0; i < state.output_types.size(); ++i)
      made.results.push_back(
          Tensor::from_buffer(made.call.results()[i], state.output_types[i], state.device));
    return call;
  } catch (...) {
    rethrow_stating(Aftermath::nothing_written);
  }
}

MemoryReport CompiledTrace::memory_report() const { return state_->plan->memory_report(); }
const Program& CompiledTrace::program() const { return state_->plan->program(); }

std::string describe_retrace(const std::vector<TensorType>& before,
                             const std::vector<TensorType>& now, bool same_places,
                             bool same_statics, bool same_device, bool same_arguments) {
  if (before.size() != now.size())
    return std::to_string(now.size()) + " argument tensors, were " + std::to_string(before.size());
  for (std::size_t i = 0; i < now.size(); ++i)
    if (!(before[i] == now[i]))
      return "argument tensor " + std::to_string(i) + ": " + to_string(now[i]) + " was " +
             to_string(before[i]);
  if (!same_places) return "other places of the arguments are empty";
  if (!same_device) return "another device";
  if (!same_arguments) return "an argument of another C++ type";
  if (!same_statics) return "a static argument changed";
  return "no signature among those known";
}

std::vector<TensorType> signature_types(const std::vector<Tensor>& arguments) {
  std::vector<TensorType> types;
  types.reserve(arguments.size());
  for (const Tensor& argument : arguments)
    if (argument) types.push_back(argument.type());
  return types;
}

Device signature_device(const std::vector<Tensor>& arguments) {
  for (const Tensor& argument : arguments)
    if (argument) return argument.device();
  return {};
}

std::vector<bool> donated_tensors(const std::vector<std::size_t>& donate,
                                  const std::vector<std::size_t>& counts) {
  std::vector<bool> donated;
  for (std::size_t i = 0; i < counts.size(); ++i)
    donated.insert(donated.end(), counts[i],
                   std::find(donate.begin(), donate.end(), i) != donate.end());
  for (const std::size_t index : donate)
    if (index >= counts.size())
      throw Error("compile: argument " + std::to_string(index) +
                  " is to be donated, and the call "
                  "has " +
                  std::to_string(counts.size()) + "; arguments are counted from 0");
  return donated;
}

void throw_captured_traced() {
  throw Error(
      "compile: the function captured a tensor that a running transform or trace depends on, so it "
      "is inlined where it is called and has no program of its own; make the tensor an argument");
}

void throw_traces_itself(const std::vector<TensorType>& types) {
  std::string text;
  for (const TensorType& type : types) text += (text.empty() ? "" : ", ") + to_string(type);
  throw Error("compile: the function called itself, compiled, on (" + text +
              ") while it was being traced for just that; call it on values that depend on its "
              "arguments, where it becomes part of the trace, or call the plain function");
}

}  // namespace fluxion
