// compile(f): trace a function over trees once per signature, then only bind buffers and run.
//
//   auto step = compile(train_step, {.donate = {0}});  // may overwrite argument 0's buffers
//   auto [state, loss] = step(state, batch, learning_rate, key);
//
// Pass whatever changes from call to call - learning rate, step, random key - as an argument:
// numbers written in f are constants of the trace. Tensors captured by f become hidden inputs,
// bound by handle, if they have been evaluated; else what computes them is part of f, and runs at
// every call. While a transform traces one of them, f is inlined. Empty places of arguments and
// results stay empty. Several threads may call one compiled function.
//
// A call that fails says what it left behind (Error::aftermath). All checks and allocations come
// before the first write to donated memory, so nearly every failed call has written nothing and
// leaves the donated arguments whole.
#pragma once

#include <algorithm>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <typeindex>
#include <vector>

#include "engine/graph/tree.h"

namespace fluxion {

struct CompileOptions {
  // Numbers of arguments, from 0, whose buffers may become outputs; their handles throw when used
  // afterwards. A buffer that has another owner, or is returned as it is, is not overwritten.
  std::vector<std::size_t> donate;
  std::size_t max_signatures = 64;  // how many are kept; the one traced first is forgotten first
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

// A call that is ready to run: its outputs are allocated and its donated arguments taken. If it is
// never run, its destructor gives them back.
class CompiledCall {
 public:
  CompiledCall(CompiledCall&&) noexcept;
  ~CompiledCall();
  const std::vector<Tensor>& results() const;  // have values once run() has returned
  // Every exception that leaves it is an Error that states its aftermath. After "nothing written"
  // the donated arguments are whole again; after any other, using one throws.
  void run(const RunOptions& options);

 private:
  friend class CompiledTrace;
  CompiledCall();
  struct State;
  std::unique_ptr<State> state_;
};

// One traced and planned signature.
class CompiledTrace {
 public:
  // Traces: `outputs` was built from `parameters` (Op::parameter leaves); donated[i] marks
  // parameters whose memory may be reused.
  CompiledTrace(std::vector<Tensor> parameters, std::vector<bool> donated,
                std::vector<Tensor> outputs);
  ~CompiledTrace();
  // Checks and evaluates the arguments, then takes the donated ones, all or none, and allocates.
  CompiledCall prepare(const std::vector<Tensor>& arguments) const;
  MemoryReport memory_report() const;
  const Program& program() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// New parameter leaves of the types of `arguments`, traced as long as this object lives. Asking for
// the value of one throws.
class TracedParameters {
 public:
  explicit TracedParameters(const std::vector<Tensor>& arguments);
  ~TracedParameters();
  TracedParameters(const TracedParameters&) = delete;
  TracedParameters& operator=(const TracedParameters&) = delete;
  const std::vector<Tensor>& tensors() const { return tensors_; }
  // Whether the outputs of a function of these parameters depend on a leaf of another transform or
  // trace that is still running.
  bool others_reach(const std::vector<Tensor>& outputs) const;

 private:
  std::vector<Tensor> tensors_;
  std::shared_ptr<TraceScope> scope_;
};

// Whether an argument depends on the leaf of a transform or trace that is still running. A compiled
// function that is called on such arguments, or that captured such a tensor, is inlined.
bool is_traced(const std::vector<Tensor>& arguments);

[[noreturn]] void throw_captured_traced();

template <class F>
class Compiled {
 public:
  Compiled(F f, CompileOptions options)
      : shared_(std::make_shared<Shared>(std::move(f), std::move(options))) {}

  template <class... Args>
  auto operator()(const Args&... args) const {
    return run(RunOptions{}, args...);
  }

  // The call with a stop token or a memory limit.
  template <class... Args>
  auto run(const RunOptions& options, const Args&... args) const
      -> ResultOf<const F&, const Args&...> {
    using Result = ResultOf<const F&, const Args&...>;
    std::vector<Tensor> arguments = leaves(std::tie(args...));
    if (is_traced(arguments)) return std::invoke(shared_->f, args...);
    const std::shared_ptr<const Entry> entry = find<Result>(arguments, args...);
    if (!entry) return std::invoke(shared_->f, args...);
    CompiledCall call = entry->trace->prepare(without_empty(std::move(arguments)));
    Result result = with_leaves(std::any_cast<const Result&>(entry->result),
                                in_places(call.results(), entry->present));
    call.run(options);
    return result;
  }

  // These trace and plan for the arguments without running. The program lives until its signature
  // is forgotten.
  template <class... Args>
  MemoryReport memory_report(const Args&... args) const {
    using Result = ResultOf<const F&, const Args&...>;
    return found<Result>(args...)->trace->memory_report();
  }
  template <class... Args>
  const Program& program(const Args&... args) const {
    using Result = ResultOf<const F&, const Args&...>;
    return found<Result>(args...)->trace->program();
  }

  // How many times the function was traced, and why the last time: "first call", "argument tensor
  // 2: f32[8, 2] was f32[4, 2]", ... Empty places are not counted.
  std::size_t traces() const {
    std::lock_guard lock(shared_->mutex);
    return shared_->traces;
  }
  std::string last_trace_reason() const {
    std::lock_guard lock(shared_->mutex);
    return shared_->reason;
  }

 private:
  struct Signature {
    std::vector<TensorType> types;  // of the argument tensors that are present
    std::vector<bool> present;
    Device device;
    std::type_index arguments = typeid(void);  // their C++ types: f may be generic, overloaded
    TreeStatics statics;
    bool operator==(const Signature&) const = default;
  };
  struct Entry {
    Signature signature;
    std::any result;            // the result tree without its tensors
    std::vector<bool> present;  // which it has
    std::unique_ptr<CompiledTrace> trace;
  };
  // A signature that a thread is tracing now.
  struct Tracing {
    std::thread::id thread;
    const Signature* signature;
  };
  struct Shared {
    Shared(F f, CompileOptions options) : f(std::move(f)), options(std::move(options)) {}
    F f;
    CompileOptions options;
    std::mutex mutex;                                   // of the rest; not held while f runs
    std::vector<std::shared_ptr<const Entry>> entries;  // in the order they were traced
    std::list<Tracing> tracing;
    std::size_t traces = 0;
    std::string reason;
  };
  std::shared_ptr<Shared> shared_;

  // Both return null, and keep nothing, if the function captured a tensor that is traced now.
  template <class Result, class... Args>
  std::shared_ptr<const Entry> find(const std::vector<Tensor>& arguments,
                                    const Args&... args) const;
  template <class Result, class... Args>
  std::shared_ptr<const Entry> trace(Signature signature, const std::vector<Tensor>& arguments,
                                     const Args&... args) const;
  std::shared_ptr<const Entry> known(const Signature& signature) const;  // with the mutex held
  template <class Result, class... Args>
  std::shared_ptr<const Entry> found(const Args&... args) const {
    auto entry = find<Result>(leaves(std::tie(args...)), args...);
    if (!entry) throw_captured_traced();
    return entry;
  }
};

template <class F>
Compiled<F> compile(F f, CompileOptions options = {}) {
  return Compiled<F>(std::move(f), std::move(options));
}

// ---- implementation

std::string describe_retrace(const std::vector<TensorType>& before,
                             const std::vector<TensorType>& now, bool same_places,
                             bool same_statics, bool same_device, bool same_arguments);

// The types of those argument tensors that are not empty, and the device of the first.
std::vector<TensorType> signature_types(const std::vector<Tensor>& arguments);
Device signature_device(const std::vector<Tensor>& arguments);

// Per argument tensor, whether it is donated. `counts[i]` is the number of tensors of argument i.
std::vector<bool> donated_tensors(const std::vector<std::size_t>& donate,
                                  const std::vector<std::size_t>& counts);

[[noreturn]] void throw_traces_itself(const std::vector<TensorType>& types);

template <class F>
std::shared_ptr<const typename Compiled<F>::Entry> Compiled<F>::known(
    const Signature& signature) const {
  for (const auto& entry : shared_->entries)
    if (entry->signature == signature) return entry;
  return nullptr;
}

template <class F>
template <class Result, class... Args>
std::shared_ptr<const typename Compiled<F>::Entry> Compiled<F>::find(
    const std::vector<Tensor>& arguments, const Args&... args) const {
  Signature signature{signature_types(arguments),
                      present_in(arguments),
                      signature_device(arguments),
                      typeid(std::tuple<Args...>),
                      {}};
  (signature.statics.add(args), ...);
  Shared& shared = *shared_;
  typename std::list<Tracing>::iterator mark;
  {
    std::lock_guard lock(shared.mutex);
    if (auto entry = known(signature)) return entry;
    for (const Tracing& other : shared.tracing)
      if (other.thread == std::this_thread::get_id() && *other.signature == signature)
        throw_traces_itself(signature.types);
    mark = shared.tracing.insert(shared.tracing.end(), {std::this_thread::get_id(), &signature});
  }
  // The mutex is free while f is traced. Two threads that trace one signature do not wait for each
  // other, since their functions might call each other: both trace, and the first to finish wins.
  std::shared_ptr<const Entry> made;
  try {
    made = trace<Result>(signature, arguments, args...);
  } catch (...) {
    std::lock_guard lock(shared.mutex);
    shared.tracing.erase(mark);
    throw;
  }
  std::lock_guard lock(shared.mutex);
  shared.tracing.erase(mark);
  if (!made) return nullptr;
  if (auto entry = known(signature)) return entry;
  if (shared.entries.empty()) {
    shared.reason = "first call";
  } else {
    const Signature& last = shared.entries.back()->signature;
    shared.reason =
        describe_retrace(last.types, signature.types, last.present == signature.present,
                         last.statics == signature.statics, last.device == signature.device,
                         last.arguments == signature.arguments);
  }
  if (shared.entries.size() >= std::max<std::size_t>(shared.options.max_signatures, 1))
    shared.entries.erase(shared.entries.begin());
  shared.entries.push_back(made);
  ++shared.traces;
  return made;
}

template <class F>
template <class Result, class... Args>
std::shared_ptr<const typename Compiled<F>::Entry> Compiled<F>::trace(
    Signature signature, const std::vector<Tensor>& arguments, const Args&... args) const {
  const std::vector<bool> donated =
      donated_tensors(shared_->options.donate, {without_empty(leaves(args)).size()...});
  const TracedParameters parameters(without_empty(arguments));
  Result result =
      std::apply(shared_->f, with_leaves(std::tuple<Args...>(args...),
                                         in_places(parameters.tensors(), signature.present)));
  const std::vector<Tensor> outputs = leaves(result);
  if (parameters.others_reach(outputs)) return nullptr;
  auto entry = std::make_shared<Entry>();
  entry->signature = std::move(signature);
  entry->present = present_in(outputs);
  entry->trace =
      std::make_unique<CompiledTrace>(parameters.tensors(), donated, without_empty(outputs));
  // Keep only the structure and the static members.
  entry->result = map_tree(std::move(result), [](const Tensor&) { return Tensor(); });
  return entry;
}

}  // namespace fluxion
