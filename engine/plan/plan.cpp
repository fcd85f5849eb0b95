#include "engine/plan/plan.h"

#include <algorithm>
#include <map>

#include "engine/plan/contractions.h"
#include "engine/plan/fuse.h"
#include "engine/plan/lower.h"
#include "engine/plan/schedule.h"

namespace fluxion {

namespace plan {

namespace {

// Copying the operands that defeated a lowering always helps; a handful of rounds settles any
// graph.
constexpr int max_rounds = 64;

std::vector<LoweredKernel> lower_all(const Graph& graph, const KernelLimits& limits,
                                     BufferNumbers& buffers,
                                     std::vector<std::pair<std::int32_t, std::int32_t>>& stuck) {
  std::vector<LoweredKernel> kernels;
  for (const Group& group : fuse(graph, limits)) {
    std::optional<Tape> tape = lower_group(graph, group, buffers, stuck);
    if (tape) kernels.push_back({TapeKernel{std::move(*tape)}, group.nodes.back()});
  }
  if (!stuck.empty()) return {};
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto n = static_cast<std::int32_t>(i);
    const OpClass op_class = info(graph.nodes[i].op).op_class;
    if (op_class == OpClass::contraction)
      kernels.push_back({lower_contraction(graph, n, buffers), n});
    if (is_whole(op_class)) kernels.push_back({lower_op(graph, n, buffers), n});
  }
  std::stable_sort(
      kernels.begin(), kernels.end(),
      [](const LoweredKernel& a, const LoweredKernel& b) { return a.position < b.position; });
  return kernels;
}

}  // namespace

Planned make_program(const Graph& given, const KernelLimits& limits) {
  Planned planned;
  Graph graph = pair_duals(simplify(given, limits, planned.extra_scalars));
  verify(graph);

  std::vector<LoweredKernel> kernels;
  std::optional<BufferNumbers> buffers;
  if (limits.fuses) {
    std::vector<std::pair<std::int32_t, std::int32_t>> stuck;
    for (int round = 0;; ++round) {
      graph = prepare(graph, stuck, static_cast<std::size_t>(limits.max_loads));
      verify(graph);
      stuck.clear();
      buffers.emplace(graph);
      kernels = lower_all(graph, limits, *buffers, stuck);
      if (stuck.empty()) break;
      if (round == max_rounds)
        throw Error("plan: a view does not fold even after copies; this is a planner error");
    }
  } else {
    buffers.emplace(graph);
    for (std::size_t i = 0; i < graph.nodes.size(); ++i)
      if (graph.nodes[i].op != Op::parameter)
        kernels.push_back({lower_op(graph, static_cast<std::int32_t>(i), *buffers),
                           static_cast<std::int32_t>(i)});
  }

  // Outputs: one buffer each, however often a value is asked for.
  Program& program = planned.program;
  program.inputs = graph.inputs;
  program.scalars = graph.scalars;
  std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> output_of;
  std::set<std::int32_t> kept;
  for (const Value output : graph.outputs) {
    const GraphNode& node = graph[output];
    if (node.op == Op::parameter) {
      planned.outputs.push_back(
          {true, static_cast<std::int32_t>(std::get<IndexAttributes>(node.attributes).index)});
      continue;
    }
    const auto [found, fresh] = output_of.try_emplace(
        {output.node, output.output}, static_cast<std::int32_t>(program.outputs.size()));
    if (fresh) {
      program.outputs.push_back(graph.type(output));
      kept.insert(buffers->of(output));
    }
    planned.outputs.push_back({false, found->second});
  }
  if (limits.fuses) {
    std::set<std::int32_t> donated;
    for (std::size_t b = 0; b < buffers->values().size(); ++b) {
      const GraphNode& node = graph[buffers->values()[b]];
      if (node.op != Op::parameter) continue;
      const std::int64_t input = std::get<IndexAttributes>(node.attributes).index;
      if (std::find(graph.donated.begin(), graph.donated.end(), input) != graph.donated.end())
        donated.insert(static_cast<std::int32_t>(b));
    }
    merge_into_contractions(kernels, buffers->values().size(), kept, donated, limits);
  }

  std::vector<BufferSlot> slots;
  for (const Value value : buffers->values()) {
    const GraphNode& node = graph[value];
    BufferSlot slot{BufferKind::temporary, graph.type(value), 0, 0};
    const auto output = output_of.find({value.node, value.output});
    if (node.op == Op::parameter) {
      slot.kind = BufferKind::input;
      slot.index = std::get<IndexAttributes>(node.attributes).index;
    } else if (output != output_of.end()) {
      slot.kind = BufferKind::output;
      slot.index = output->second;
    }
    slots.push_back(std::move(slot));
  }
  schedule(std::move(kernels), std::move(slots), graph.donated, program);
  verify(program);
  return planned;
}

}  // namespace plan

// ---- Plan

Plan::Plan(plan::Graph graph, Backend& backend)
    : graph_(std::move(graph)),
      planned_(plan::make_program(graph_, backend.capabilities().limits)),
      backend_(backend),
      executable_(backend.compile(planned_.program)) {}

std::vector<std::shared_ptr<Buffer>> Plan::run(const std::vector<std::shared_ptr<Buffer>>& inputs,
                                               std::span<const double> scalars,
                                               const RunOptions& options) const {
  const Program& program = planned_.program;
  std::vector<double> all_scalars(scalars.begin(), scalars.end());
  all_scalars.insert(all_scalars.end(), planned_.extra_scalars.begin(),
                     planned_.extra_scalars.end());

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
  for (const OutputSource& source : planned_.outputs)
    result.push_back(source.from_input ? inputs[static_cast<std::size_t>(source.index)]
                                       : outputs[static_cast<std::size_t>(source.index)]);
  return result;
}

MemoryReport Plan::memory_report() const {
  const Program& program = planned_.program;
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

// ---- PlanCache

std::shared_ptr<const Plan> PlanCache::find_or_make(plan::Graph graph, Backend& backend) {
  const std::uint64_t key = [&] {
    const plan::Hash128 hash = plan::hash(graph);
    return hash.low ^ (hash.high * 0x9e3779b97f4a7c15u);
  }();
  const auto find = [&]() -> std::shared_ptr<const Plan> {
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
  auto plan = std::make_shared<const Plan>(graph, backend);
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
