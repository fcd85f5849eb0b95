#include "engine/plan_cache.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/platform/memory_size.h"
#include "engine/sole_owner.h"

namespace fluxion {

// ---- calls

std::vector<std::shared_ptr<Buffer>> buffers_of(const std::vector<Tensor>& tensors) {
  std::vector<std::shared_ptr<Buffer>> buffers;
  for (const Tensor& tensor : tensors) {
    std::shared_ptr<Buffer> buffer = tensor.node()->value(tensor.output());
    if (!buffer) throw Error("eval: an input has no value; this is an engine error");
    buffers.push_back(std::move(buffer));
  }
  return buffers;
}

void BoundCall::allocate(Backend& backend) {
  const Program& program = plan_->program();
  const std::vector<OutputSource>& sources = plan_->outputs_;
  // Inputs that are also results come first: the second owner keeps outputs from taking them over.
  results_.resize(sources.size());
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (sources[i].from_input) results_[i] = inputs_[static_cast<std::size_t>(sources[i].index)];
  outputs_.reserve(program.outputs.size());
  for (std::size_t o = 0; o < program.outputs.size(); ++o) {
    const std::int32_t donor = program.donations[o];
    // With one owner, nothing else can see that the value is overwritten.
    const bool reuse = donor >= 0 && is_sole_owner(inputs_[static_cast<std::size_t>(donor)]);
    overwrites_ = overwrites_ || reuse;
    outputs_.push_back(reuse ? inputs_[static_cast<std::size_t>(donor)]
                             : backend.allocate(program.outputs[o]));
  }
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (!sources[i].from_input) results_[i] = outputs_[static_cast<std::size_t>(sources[i].index)];
  input_pointers_.reserve(inputs_.size());
  output_pointers_.reserve(outputs_.size());
  for (const auto& input : inputs_) input_pointers_.push_back(input.get());
  for (const auto& output : outputs_) output_pointers_.push_back(output.get());
}

void BoundCall::run(const RunOptions& options) {
  const CompiledProgram& compiled = *plan_->compiled_;
  if (compiled.program.kernels.empty()) return;
  try {
    compiled.executable->submit({input_pointers_, output_pointers_, scalars_}, options);
  } catch (...) {
    // A backend that states no aftermath may have written anything.
    try {
      rethrow_stating(Aftermath::state_lost);
    } catch (Error& error) {
      if (error.aftermath() == Aftermath::state_lost && !overwrites_)
        error.state_aftermath(Aftermath::nothing_written);
      if (error.aftermath() == Aftermath::state_lost)
        error.add_words("; donated arguments were being overwritten: their values are lost");
      throw;
    }
  }
}

// ---- plans

ExecutablePlan::ExecutablePlan(plan::Graph graph, Plan plan,
                               std::shared_ptr<const CompiledProgram> compiled)
    : graph_(std::move(graph)),
      extra_scalars_(std::move(plan.extra_scalars)),
      outputs_(std::move(plan.outputs)),
      compiled_(std::move(compiled)) {}

BoundCall ExecutablePlan::bind(std::vector<std::shared_ptr<Buffer>> inputs,
                               std::span<const double> scalars) const {
  BoundCall call;
  call.plan_ = shared_from_this();
  call.inputs_ = std::move(inputs);
  call.scalars_.reserve(scalars.size() + extra_scalars_.size());
  call.scalars_.assign(scalars.begin(), scalars.end());
  call.scalars_.insert(call.scalars_.end(), extra_scalars_.begin(), extra_scalars_.end());
  return call;
}

MemoryReport ExecutablePlan::memory_report() const {
  const Program& program = compiled_->program;
  const Storage& storage = compiled_->storage;
  MemoryReport report;
  for (const TensorType& input : program.inputs) report.input_bytes += bytes_of(input, storage);
  for (std::size_t o = 0; o < program.outputs.size(); ++o) {
    const std::size_t bytes = bytes_of(program.outputs[o], storage);
    report.output_bytes += bytes;
    if (program.donations[o] >= 0) report.donated_bytes += bytes;
  }
  report.arena_bytes = memory_size(program.arena_bytes, "the arena");
  report.workspace_bytes = compiled_->executable->workspace_bytes();
  report.kernels = static_cast<int>(program.kernels.size());
  return report;
}

// ---- the cache

namespace {

// FNV-1a over the program's bytes, eight at a time.
std::uint64_t hash_of(const Program& program) {
  const std::vector<std::byte> bytes = serialise(program);
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    std::uint64_t word = 0;
    for (std::size_t k = i; k < std::min(i + 8, bytes.size()); ++k)
      word = word << 8 | static_cast<std::uint64_t>(bytes[k]);
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 29;
  }
  return hash;
}

}  // namespace

std::shared_ptr<const ExecutablePlan> PlanCache::find_plan(std::uint64_t key,
                                                           const plan::Graph& graph) {
  const auto [begin, end] = index_.equal_range(key);
  for (auto found = begin; found != end; ++found) {
    if (!(found->second->second->graph() == graph)) continue;
    recent_.splice(recent_.begin(), recent_, found->second);
    return recent_.front().second;
  }
  return nullptr;
}

std::shared_ptr<const CompiledProgram> PlanCache::find_program(std::uint64_t key,
                                                               const Program& program) {
  const auto [begin, end] = programs_.equal_range(key);
  for (auto found = begin; found != end; ++found)
    if (auto compiled = found->second.lock(); compiled && compiled->program == program)
      return compiled;
  return nullptr;
}

std::shared_ptr<const CompiledProgram> PlanCache::find_or_compile(Program program,
                                                                  Backend& backend) {
  const std::uint64_t key = hash_of(program);
  {
    std::lock_guard lock(mutex_);
    if (auto compiled = find_program(key, program)) return compiled;
  }
  auto made = std::make_shared<CompiledProgram>();
  made->executable = backend.compile(program);
  made->storage = backend.capabilities().storage;
  made->program = std::move(program);
  std::lock_guard lock(mutex_);
  if (auto other = find_program(key, made->program)) return other;
  std::erase_if(programs_, [](const auto& entry) { return entry.second.expired(); });
  programs_.emplace(key, made);
  return made;
}

std::shared_ptr<const ExecutablePlan> PlanCache::find_or_make(plan::Graph graph, Backend& backend) {
  const std::uint64_t key = plan::hash(graph);
  {
    std::lock_guard lock(mutex_);
    if (auto plan = find_plan(key, graph)) return plan;
  }
  // Planning is slow, so the mutex is free meanwhile. Two threads that miss on one graph both plan
  // it; the first plan stays.
  Plan made = plan::make_plan(graph, backend.capabilities());
  auto compiled = find_or_compile(std::move(made.program), backend);
  auto plan = std::make_shared<const ExecutablePlan>(std::move(graph), std::move(made),
                                                     std::move(compiled));
  std::lock_guard lock(mutex_);
  if (auto other = find_plan(key, plan->graph())) return other;
  recent_.emplace_front(key, plan);
  index_.emplace(key, recent_.begin());
  if (recent_.size() > capacity_) forget(std::prev(recent_.end()));
  return plan;
}

void PlanCache::forget_latest() {
  std::lock_guard lock(mutex_);
  if (!recent_.empty()) forget(recent_.begin());
}

void PlanCache::forget(std::list<Entry>::iterator entry) {
  const auto [begin, end] = index_.equal_range(entry->first);
  for (auto found = begin; found != end; ++found) {
    if (found->second == entry) {
      index_.erase(found);
      break;
    }
  }
  recent_.erase(entry);
}

std::size_t PlanCache::size() const {
  std::lock_guard lock(mutex_);
  return recent_.size();
}

}  // namespace fluxion
