// compile(f): trace a function over trees once per signature, then only bind buffers and run.
//
//   auto step = compile(train_step, {.donate = {0}});      // donate argument 0: its buffers may be
//   overwritten auto [state, loss] = step(state, batch, learning_rate, key);
//
// Whatever changes from call to call - learning rate, step, random key - is an argument; numbers
// written in f are constants of the trace. Tensors captured by f become hidden inputs, bound by
// handle. Several threads may call one compiled function.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "engine/graph/tree.h"

namespace fluxion {

struct CompileOptions {
  std::vector<std::size_t> donate;  // arguments whose buffers may become outputs; their handles
                                    // throw when used afterwards
  std::size_t max_signatures = 64;  // kept; the one traced longest ago is forgotten first
};

// What a compiled call or an eval needs, known before anything runs.
struct MemoryReport {
  std::size_t input_bytes = 0, output_bytes = 0;
  std::size_t arena_bytes = 0;      // temporaries
  std::size_t workspace_bytes = 0;  // arena and backend scratch
  std::size_t donated_bytes = 0;    // outputs that take over inputs
  int kernels = 0;
  std::size_t peak_bytes() const {
    return input_bytes + output_bytes - donated_bytes + workspace_bytes;
  }
};
std::string to_string(const MemoryReport& report);

// One traced and planned signature.
class CompiledTrace {
 public:
  // Traces: `outputs` was built from `parameters` (Op::parameter leaves); donated[i] marks
  // parameters whose memory may be reused.
  CompiledTrace(std::vector<Tensor> parameters, std::vector<bool> donated,
                std::vector<Tensor> outputs);
  ~CompiledTrace();
  std::vector<Tensor> run(const std::vector<Tensor>& arguments, const RunOptions& options) const;
  MemoryReport memory_report() const;
  const Program& program() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Fresh parameter leaves of the types of `arguments`, live while this object is. Asking for the
// value of one throws.
class TracedParameters {
 public:
  explicit TracedParameters(const std::vector<Tensor>& arguments);
  ~TracedParameters();
  TracedParameters(const TracedParameters&) = delete;
  TracedParameters& operator=(const TracedParameters&) = delete;
  const std::vector<Tensor>& tensors() const { return tensors_; }

 private:
  std::vector<Tensor> tensors_;
  std::shared_ptr<TraceScope> scope_;
};

// Whether one of these depends on the leaf of a transform or trace that is still running: a
// compiled function called on it is inlined.
bool is_traced(const std::vector<Tensor>& arguments);

template <class F>
class Compiled {
 public:
  Compiled(F f, CompileOptions options)
      : shared_(std::make_shared<Shared>(std::move(f), std::move(options))) {}

  template <class... Args>
  auto operator()(const Args&... args) const {
    return run(RunOptions{}, args...);
  }

  // The same with a stop token or a memory limit.
  template <class... Args>
  auto run(const RunOptions& options, const Args&... args) const
      -> std::invoke_result_t<const F&, const Args&...> {
    using Result = std::invoke_result_t<const F&, const Args&...>;
    const std::vector<Tensor> arguments = leaves(std::tie(args...));
    if (is_traced(arguments)) return std::invoke(shared_->f, args...);
    auto entry = find<Result>(arguments, args...);
    return with_leaves(std::any_cast<const Result&>(entry->result),
                       entry->trace->run(arguments, options));
  }

  // Trace and plan for these arguments without running. A program lives until its signature is
  // forgotten.
  template <class... Args>
  MemoryReport memory_report(const Args&... args) const {
    using Result = std::invoke_result_t<const F&, const Args&...>;
    return find<Result>(leaves(std::tie(args...)), args...)->trace->memory_report();
  }
  template <class... Args>
  const Program& program(const Args&... args) const {
    using Result = std::invoke_result_t<const F&, const Args&...>;
    return find<Result>(leaves(std::tie(args...)), args...)->trace->program();
  }

  // How often the function was traced, and why the last time: "first call", "argument tensor 2:
  // f32[8, 2] was f32[4, 2]", ...
  std::size_t traces() const {
    std::lock_guard lock(shared_->mutex);
    return shared_->traces;
  }
  std::string last_trace_reason() const {
    std::lock_guard lock(shared_->mutex);
    return shared_->reason;
  }

 private:
  struct Entry {
    std::vector<TensorType> types;
    Device device;
    TreeStatics statics;
    std::any result;  // the result tree, holding the traced tensors
    std::unique_ptr<CompiledTrace> trace;
  };
  struct Shared {
    Shared(F f, CompileOptions options) : f(std::move(f)), options(std::move(options)) {}
    F f;
    CompileOptions options;
    std::mutex mutex;
    std::vector<std::shared_ptr<Entry>> entries;  // in the order they were traced
    std::size_t traces = 0;
    std::string reason;
  };
  std::shared_ptr<Shared> shared_;

  template <class Result, class... Args>
  std::shared_ptr<Entry> find(const std::vector<Tensor>& arguments, const Args&... args) const;
};

template <class F>
Compiled<F> compile(F f, CompileOptions options = {}) {
  return Compiled<F>(std::move(f), std::move(options));
}

// ---- implementation

std::string describe_retrace(const std::vector<TensorType>& before,
                             const std::vector<TensorType>& now, bool same_statics,
                             bool same_device);

template <class F>
template <class Result, class... Args>
std::shared_ptr<typename Compiled<F>::Entry> Compiled<F>::find(const std::vector<Tensor>& arguments,
                                                               const Args&... args) const {
  std::vector<TensorType> types;
  for (const Tensor& argument : arguments) {
    if (!argument)
      throw Error("compile: argument tensor " + std::to_string(types.size()) +
                  " holds no tensor; give it a value, or leave it out of the arguments");
    types.push_back(argument.type());
  }
  const Device device = arguments.empty() ? Device() : arguments.front().device();
  TreeStatics statics;
  (statics.add(args), ...);
  std::lock_guard lock(shared_->mutex);
  for (const auto& entry : shared_->entries)
    if (entry->types == types && entry->device == device && entry->statics == statics) return entry;
  if (shared_->entries.empty()) {
    shared_->reason = "first call";
  } else {
    const Entry& last = *shared_->entries.back();
    shared_->reason =
        describe_retrace(last.types, types, last.statics == statics, last.device == device);
  }

  auto entry = std::make_shared<Entry>();
  const TracedParameters parameters(arguments);
  std::vector<bool> donated;
  std::size_t position = 0;
  ((donated.insert(donated.end(), leaves(args).size(),
                   std::find(shared_->options.donate.begin(), shared_->options.donate.end(),
                             position) != shared_->options.donate.end()),
    ++position),
   ...);
  Result result = std::apply(
      shared_->f,
      with_leaves(std::tuple<Args...>(args...), std::span<const Tensor>(parameters.tensors())));
  entry->trace = std::make_unique<CompiledTrace>(parameters.tensors(), donated, leaves(result));
  // Keep the structure and the static members only.
  entry->result = map_tree(std::move(result), [](const Tensor&) { return Tensor(); });
  entry->types = std::move(types);
  entry->device = device;
  entry->statics = std::move(statics);
  if (shared_->entries.size() >= std::max<std::size_t>(shared_->options.max_signatures, 1))
    shared_->entries.erase(shared_->entries.begin());
  shared_->entries.push_back(entry);
  ++shared_->traces;
  return entry;
}

}  // namespace fluxion
