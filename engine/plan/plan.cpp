#include "engine/plan/plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/plan/contractions.h"
#include "engine/plan/fuse.h"
#include "engine/plan/lower.h"
#include "engine/plan/prepare.h"
#include "engine/plan/schedule.h"
#include "engine/plan/split.h"
#include "engine/plan/tape_edit.h"

namespace fluxion {

namespace plan {

namespace {

// Each round halves what does not fit, so a few dozen suffice for any graph.
constexpr int max_rounds = 256;

// Lowers a prepared graph, and adds to `cuts` what must change before every kernel fits the device.
// If it adds anything, the kernels are incomplete.
class Lowering {
 public:
  Lowering(const Graph& graph, const Capabilities& device, BufferNumbers& buffers, Cuts& cuts)
      : graph_(graph), device_(device), buffers_(buffers), cuts_(cuts), stored_(cuts.stored) {}

  Kernels run() {
    for (const Group& group : fuse(graph_, device_, cuts_.stored)) lower(group);
    for (const NodeId n : graph_.nodes.ids()) {
      const OpClass op_class = info(graph_[n].op).op_class;
      if (op_class == OpClass::contraction) lower(n, lower_contraction(graph_, n, buffers_));
      if (is_whole(op_class)) lower(n, lower_op(graph_, n, buffers_));
    }
    std::stable_sort(
        kernels_.begin(), kernels_.end(),
        [](const LoweredKernel& a, const LoweredKernel& b) { return a.position < b.position; });
    return std::move(kernels_);
  }

 private:
  void lower(const Group& group) {
    std::vector<Use> stuck;
    std::optional<Tape> tape = lower_group(graph_, group, buffers_, stuck);
    for (const Use use : stuck) {
      const Value value = graph_[use.user].inputs[static_cast<std::size_t>(use.number)];
      if (stored_.contains(value.node))
        throw Error("plan: a view does not fold even over a copy; this is a planner error");
      if (!cuts_.stored.contains(value.node)) cuts_.copied.insert(use);
    }
    if (!tape) return;
    if (static_cast<std::int64_t>(tape->extents.size()) > device_.limits.max_axes)
      merge_axes(*tape);
    Kernel kernel = TapeKernel{std::move(*tape)};
    if (const Fit fit = check(kernel); !fit)
      split_group(graph_, group, excess(fit), cuts_);
    else
      kernels_.add({std::move(kernel), group.nodes.back()});
  }

  void lower(NodeId node, Kernel kernel) {
    if (const Fit fit = check(kernel); !fit)
      split_operator(graph_, node, excess(fit), cuts_);
    else
      kernels_.add({std::move(kernel), node});
  }

  Fit check(const Kernel& kernel) {
    while (slots_.size() < buffers_.values().size()) {
      const Value value = buffers_.values()[BufferId(std::ssize(slots_))];
      slots_.add({BufferKind::temporary, graph_.type(value), 0, 0});
    }
    return fits(kernel, slots_.items(), device_.limits, device_.storage);
  }

  Excess excess(const Fit& fit) const {
    const Value memory = fit.buffer >= 0 ? buffers_.values()[BufferId(fit.buffer)] : Value{};
    return {fit, memory, device_.limits, device_.storage, device_.name};
  }

  const Graph& graph_;
  const Capabilities& device_;
  BufferNumbers& buffers_;
  Cuts& cuts_;
  const std::set<NodeId> stored_;  // the cuts that the groups were made with
  Slots slots_;                    // types only
  Kernels kernels_;
};

// Prepares and lowers the graph in rounds: each cuts it further, until every kernel fits
// (engine/plan/split.h). `graph` becomes the prepared one, whose values `buffers` numbers.
Kernels lower_until_it_fits(Graph& graph, const Capabilities& device,
                            std::optional<BufferNumbers>& buffers) {
  require_least(device.limits, device.name);
  Cuts cuts;
  for (int round = 0; round < max_rounds; ++round) {
    graph = prepare(graph, device.limits, cuts);
    verify(graph);
    buffers.emplace(graph);
    const std::size_t stored = cuts.stored.size();
    Kernels kernels = Lowering(graph, device, *buffers, cuts).run();
    if (cuts.stored.size() == stored && cuts.copied.empty() && cuts.stepped.empty()) return kernels;
  }
  throw Error("plan: the kernels don't fit " + device.name + " after " +
              std::to_string(max_rounds) + " rounds of splitting; this is a planner error");
}

// A kernel for each op, for devices that don't fuse.
Kernels lower_each_op(const Graph& graph, std::optional<BufferNumbers>& buffers) {
  buffers.emplace(graph);
  Kernels kernels;
  for (const NodeId n : graph.nodes.ids())
    if (graph[n].op != Op::parameter) kernels.add({lower_op(graph, n, *buffers), n});
  return kernels;
}

// Sets the inputs, scalars and outputs of the plan, and returns the role of each buffer. An output
// has one buffer, however often it is one; an input that is an output has none beside its own.
Slots assign_slots(const Graph& graph, const BufferNumbers& buffers, Plan& plan) {
  Program& program = plan.program;
  program.inputs = graph.inputs;
  program.scalars = graph.scalars;
  std::map<Value, std::int32_t> output_of;
  for (const Value output : graph.outputs) {
    const GraphNode& node = graph[output];
    if (node.op == Op::parameter) {
      plan.outputs.push_back(
          {true, static_cast<std::int32_t>(std::get<IndexAttributes>(node.attributes).index)});
      continue;
    }
    const auto [found, fresh] =
        output_of.try_emplace(output, static_cast<std::int32_t>(program.outputs.size()));
    if (fresh) program.outputs.push_back(graph.type(output));
    plan.outputs.push_back({false, found->second});
  }
  Slots slots;
  for (const Value value : buffers.values()) {
    const GraphNode& node = graph[value];
    BufferSlot slot{BufferKind::temporary, graph.type(value), 0, 0};
    const auto output = output_of.find(value);
    if (node.op == Op::parameter) {
      slot.kind = BufferKind::input;
      slot.index = std::get<IndexAttributes>(node.attributes).index;
    } else if (output != output_of.end()) {
      slot.kind = BufferKind::output;
      slot.index = output->second;
    }
    slots.add(std::move(slot));
  }
  return slots;
}

void merge(Kernels& kernels, const Slots& slots, const std::set<std::int64_t>& donated,
           const Capabilities& device) {
  std::set<BufferId> outputs, donated_buffers;
  for (const BufferId b : slots.ids()) {
    if (slots[b].kind == BufferKind::output) outputs.insert(b);
    if (slots[b].kind == BufferKind::input && donated.contains(slots[b].index))
      donated_buffers.insert(b);
  }
  merge_into_contractions(kernels, slots, outputs, donated_buffers, device);
}

}  // namespace

Plan make_plan(const Graph& given, const Capabilities& device) {
  Plan plan;
  Graph graph = pair_duals(simplify(given, device, plan.extra_scalars));
  verify(graph);
  const bool fuses = device.limits.fuses;
  std::optional<BufferNumbers> buffers;
  Kernels kernels =
      fuses ? lower_until_it_fits(graph, device, buffers) : lower_each_op(graph, buffers);
  Slots slots = assign_slots(graph, *buffers, plan);
  // An input that is also an output must keep its value.
  std::set<std::int64_t> donated(graph.donated.begin(), graph.donated.end());
  for (const OutputSource& source : plan.outputs)
    if (source.from_input) donated.erase(source.index);
  if (fuses) merge(kernels, slots, donated, device);
  schedule(std::move(kernels), std::move(slots), donated, device.limits, device.storage,
           plan.program);
  verify(plan.program, device.storage);
  require_fits(plan.program, device.limits, device.storage, device.name);
  return plan;
}

}  // namespace plan

}  // namespace fluxion
