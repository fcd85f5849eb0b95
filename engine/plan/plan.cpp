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

Plan make_plan(const Graph& given, const Capabilities& device) {
  const KernelLimits& limits = device.limits;
  Plan plan;
  Graph graph = pair_duals(simplify(given, limits, plan.extra_scalars));
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
  Program& program = plan.program;
  program.inputs = graph.inputs;
  program.scalars = graph.scalars;
  std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> output_of;
  std::set<std::int32_t> kept;
  for (const Value output : graph.outputs) {
    const GraphNode& node = graph[output];
    if (node.op == Op::parameter) {
      plan.outputs.push_back(
          {true, static_cast<std::int32_t>(std::get<IndexAttributes>(node.attributes).index)});
      continue;
    }
    const auto [found, fresh] = output_of.try_emplace(
        {output.node, output.output}, static_cast<std::int32_t>(program.outputs.size()));
    if (fresh) {
      program.outputs.push_back(graph.type(output));
      kept.insert(buffers->of(output));
    }
    plan.outputs.push_back({false, found->second});
  }
  // An input that is an output too must keep its value.
  std::set<std::int64_t> donated(graph.donated.begin(), graph.donated.end());
  for (const OutputSource& source : plan.outputs)
    if (source.from_input) donated.erase(source.index);
  if (limits.fuses) {
    std::set<std::int32_t> donated_buffers;
    for (std::size_t b = 0; b < buffers->values().size(); ++b) {
      const GraphNode& node = graph[buffers->values()[b]];
      if (node.op == Op::parameter &&
          donated.contains(std::get<IndexAttributes>(node.attributes).index))
        donated_buffers.insert(static_cast<std::int32_t>(b));
    }
    merge_into_contractions(kernels, buffers->values().size(), kept, donated_buffers, limits);
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
  schedule(std::move(kernels), std::move(slots), donated, program);
  verify(program);
  return plan;
}

}  // namespace plan

}  // namespace fluxion
