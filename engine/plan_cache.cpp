#include "engine/plan_cache.h"

namespace fluxion {

ExecutablePlan::ExecutablePlan(plan::Graph graph, Backend& backend)
    : graph_(std::move(graph)),
      plan_(plan::make_plan(graph_, backend.capabilities())),
      backend_(backend),
      executable_(backend.compile(plan_.program)) {}

std::vector<std::shared_ptr<Buffer>> ExecutablePlan::run(
    const std::vector<std::shared_ptr<Buffer>>& inputs, std::span<const double> scalars,
    const RunOptions& options) const {
  const Program& program = plan_.program;
  std::vector<double> all_scalars(scalars.begin(), scalars.end());
  all_scalars.insert(all_scalars.end(), plan_.extra_scalars.begin(), plan_.extra_scalars.end());

  std::vector<std::shared_ptr<Buffer>> outputs;
  for (std::size_t o = 0; o < program.outputs.size(); ++o) {
    const std::int32_t donor = program.donations[o];
    // With one owner, nobody can see the value being overwritten.
    const bool reuse = donor >= 0 && inputs[static_cast<std::size_t>(donor)].use_count() == 1;
    outputs.push_back(reuse ? inputs[static_cast<std::size_t>(donor)]
                            : backend_.allocate(program.outputs[o].bytes()));
  }
  std::vector<Buffer*> input_pointers, output_pointers;
  for (const auto& input : inputs) input_pointers.push_back(input.get());
  for (const auto& output : outputs) output_pointers.push_back(output.get());
  if (!program.kernels.empty())
    executable_->run({input_pointers, output_pointers, all_scalars}, options);

  std::vector<std::shared_ptr<Buffer>> result;
  for (const OutputSource& source : plan_.outputs)
    result.push_back(source.from_input ? inputs[static_cast<std::size_t>(source.index)]
                                       : outputs[static_cast<std::size_t>(source.index)]);
  return result;
}

MemoryReport ExecutablePlan::memory_report() const {
  const Program& program = plan_.program;
  MemoryReport report;
  for (const TensorType& input : program.inputs) report.input_bytes += input.bytes();
  for (std::size_t o = 0; o < program.outputs.size(); ++o) {
    report.output_bytes += program.outputs[o].bytes();
    if (program.donations[o] >= 0) report.donated_bytes += program.outputs[o].bytes();
  }
  report.arena_bytes = static_cast<std::size_t>(program.arena_bytes);
  report.workspace_bytes = executable_->workspace_bytes();
  report.kernels = static_cast<int>(program.kernels.size());
  return report;
}

std::shared_ptr<const ExecutablePlan> PlanCache::find_or_make(plan::Graph graph, Backend& backend) {
  const std::uint64_t key = [&] {
    const plan::Hash128 hash = plan::hash(graph);
    return hash.low ^ (hash.high * 0x9e3779b97f4a7c15u);
  }();
  const auto find = [&]() -> std::shared_ptr<const ExecutablePlan> {
    const auto [begin, end] = index_.equal_range(key);
    for (auto found = begin; found != end; ++found) {
      if (!(found->second->second->graph() == graph)) continue;
      recent_.splice(recent_.begin(), recent_, found->second);
      return recent_.front().second;
    }
    return nullptr;
  };
  {
    std::lock_guard lock(mutex_);
    if (auto plan = find()) return plan;
  }
  // Planning takes long: other threads may use the cache meanwhile. Two that miss on one graph both
  // plan it; one plan stays.
  auto plan = std::make_shared<const ExecutablePlan>(graph, backend);
  std::lock_guard lock(mutex_);
  if (auto other = find()) return other;
  recent_.emplace_front(key, plan);
  index_.emplace(key, recent_.begin());
  if (recent_.size() > capacity_) {
    const auto oldest = std::prev(recent_.end());
    const auto [begin, end] = index_.equal_range(oldest->first);
    for (auto found = begin; found != end; ++found) {
      if (found->second == oldest) {
        index_.erase(found);
        break;
      }
    }
    recent_.pop_back();
  }
  return plan;
}

std::size_t PlanCache::size() const {
  std::lock_guard lock(mutex_);
  return recent_.size();
}

}  // namespace fluxion
