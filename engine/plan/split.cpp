#include "engine/plan/split.h"

#include <algorithm>
#include <optional>
#include <string>

#include "engine/error.h"
#include "engine/graph/op_names.h"
#include "engine/plan/fuse.h"
#include "engine/plan/steps.h"

namespace fluxion::plan {

namespace {

bool is_movement(const Graph& graph, Value value) {
  return info(graph[value].op).op_class == OpClass::movement;
}

// The values outside of movement ops that `value` is a view of.
template <class F>
void for_each_source(const Graph& graph, Value value, F&& f) {
  std::vector<Value> pending{value};
  std::set<NodeId> seen;
  while (!pending.empty()) {
    const Value next = pending.back();
    pending.pop_back();
    if (!is_movement(graph, next)) {
      f(next);
      continue;
    }
    if (!seen.insert(next.node).second) continue;
    for (const Value input : graph[next].inputs) pending.push_back(input);
  }
}

// The number of movement ops between a value and memory. It is 0 where no index must be followed:
// for a reshape of memory, and for a broadcast number.
class ViewWeights {
 public:
  explicit ViewWeights(const Graph& graph) : graph_(graph) {}

  std::int64_t of(Value value) {
    std::vector<Value> pending{value};
    while (!pending.empty()) {
      const Value next = pending.back();
      if (known_.contains(next.node)) {
        pending.pop_back();
        continue;
      }
      if (plain(next)) {
        known_[next.node] = 0;
        continue;
      }
      std::int64_t weight = 1;
      bool ready = true;
      for (const Value input : graph_[next].inputs) {
        const auto found = known_.find(input.node);
        if (found == known_.end()) {
          pending.push_back(input);
          ready = false;
        } else {
          weight = std::min(most, weight + found->second);
        }
      }
      if (ready) known_[next.node] = weight;
    }
    return known_[value.node];
  }

 private:
  // Caps the weights, which can grow exponentially: shared pieces count every time.
  static constexpr std::int64_t most = std::int64_t{1} << 40;

  bool plain(Value value) const {
    while (graph_[value].op == Op::reshape) value = graph_[value].inputs[0];
    if (!is_movement(graph_, value)) return true;
    while (graph_[value].op == Op::reshape || graph_[value].op == Op::broadcast_to)
      value = graph_[value].inputs[0];
    return graph_[value].op == Op::constant;
  }

  const Graph& graph_;
  std::map<NodeId, std::int64_t> known_;
};

// Whether one buffer can hold a value.
bool storable(const TensorType& type, const Excess& excess) {
  return type.shape.elements() <= excess.limits.max_index() &&
         static_cast<std::int64_t>(bytes_of(type, excess.storage)) <=
             excess.limits.max_binding_bytes;
}

[[noreturn]] void refuse(const Graph& graph, NodeId node, const Excess& excess) {
  const bool memory = excess.fit.buffer >= 0 && excess.buffer.node;
  const Value value = memory ? excess.buffer : Value{node, 0};
  const GraphNode& maker = graph[value];
  std::string what;
  if (maker.op == Op::parameter)
    what = "input " + std::to_string(std::get<IndexAttributes>(maker.attributes).index);
  else
    what = "the result of " + std::string(to_string(maker.op));
  what += ", " + to_string(graph.type(value)) + ", ";
  throw DeviceError("plan: " + what +
                    (memory ? "lies in one buffer, which is too large for "
                            : "needs a kernel that is too large for ") +
                    std::string(excess.device) + ": " + to_string(excess.fit) +
                    "; it can't be split further");
}

// The node of a group to write to memory: it has a user in the group, lies near the middle, so that
// both halves soon fit, and is small.
std::optional<NodeId> find_cut(const Graph& graph, const Group& group, const Excess& excess) {
  const std::set<NodeId> members(group.nodes.begin(), group.nodes.end());
  std::set<NodeId> read;
  for (const NodeId n : group.nodes)
    for (const Value input : graph[n].inputs)
      for_each_source(graph, input, [&](Value source) {
        if (members.contains(source.node) && source.node != n) read.insert(source.node);
      });
  const bool of_rows =
      excess.fit.broken == Limit::row_elements || excess.fit.broken == Limit::row_bytes;
  struct Rank {
    bool narrow, middle;  // false first
    std::int64_t elements, distance;
    NodeId node;
    auto operator<=>(const Rank&) const = default;
  };
  std::optional<Rank> best;
  const auto size = static_cast<std::int64_t>(group.nodes.size());
  for (std::int64_t position = 0; position < size; ++position) {
    const NodeId n = group.nodes[static_cast<std::size_t>(position)];
    const TensorType& type = graph[n].outputs[0];
    if (!read.contains(n) || !storable(type, excess)) continue;
    const bool reduction = info(graph[n].op).op_class == OpClass::reduction;
    const std::int64_t distance = std::abs(2 * position + 1 - size);
    const Rank rank{of_rows && !reduction, 2 * distance > size, type.shape.elements(), distance, n};
    if (!best || rank < *best) best = rank;
  }
  if (!best) return std::nullopt;
  return best->node;
}

// The operand of the group that is read through the most movement ops. Operands of copies do not
// count: copying them again gains nothing.
std::optional<Use> heaviest_operand(const Graph& graph, const std::vector<NodeId>& nodes) {
  ViewWeights weights(graph);
  std::int64_t most = 0;
  std::optional<Use> best;
  for (const NodeId n : nodes) {
    const GraphNode& node = graph[n];
    if (node.op == Op::identity) continue;
    for (std::size_t k = 0; k < node.inputs.size(); ++k)
      if (const std::int64_t weight = weights.of(node.inputs[k]); weight > most) {
        most = weight;
        best = Use{n, static_cast<std::int32_t>(k)};
      }
  }
  return best;
}

bool add_steps(const Graph& graph, NodeId node, const Excess& excess, Cuts& cuts) {
  if (!has_steps(graph, graph[node], excess.fit.broken, excess.limits)) return false;
  cuts.stepped[node] = excess.fit.broken;
  return true;
}

// Splits a copy of a view: another copy halves the movement ops, and a single op is done in steps.
void split_copy(const Graph& graph, NodeId copy, const Excess& excess, Cuts& cuts) {
  ViewWeights weights(graph);
  Value view = graph[copy].inputs[0];
  const std::int64_t all = weights.of(view);
  if (all == 0) refuse(graph, copy, excess);
  for (bool lower = true; lower;) {
    lower = false;
    for (const Value input : graph[view].inputs)
      if (2 * weights.of(input) > all) {
        view = input;
        lower = true;
        break;
      }
  }
  bool copied = false;
  for (std::size_t k = 0; k < graph[view].inputs.size(); ++k) {
    if (weights.of(graph[view].inputs[k]) == 0) continue;
    cuts.copied.insert({view.node, static_cast<std::int32_t>(k)});
    copied = true;
  }
  if (!copied && !add_steps(graph, view.node, excess, cuts)) refuse(graph, copy, excess);
}

}  // namespace

void split_group(const Graph& graph, const Group& group, const Excess& excess, Cuts& cuts) {
  const NodeId last = group.nodes.back();
  const Limit broken = excess.fit.broken;
  if (broken == Limit::binding || (broken == Limit::index && excess.fit.buffer >= 0))
    refuse(graph, last, excess);
  const GraphNode& node = graph[last];
  const bool alone = group.nodes.size() == 1;
  if (alone && node.op == Op::identity) return split_copy(graph, last, excess, cuts);
  // An index that is too large comes from a row that is too long, or from a view.
  if (broken == Limit::index) {
    bool shorter = false;
    for (const NodeId n : group.nodes) shorter = add_steps(graph, n, excess, cuts) || shorter;
    if (shorter) return;
  }
  const bool of_views =
      alone || broken == Limit::axes || broken == Limit::guards || broken == Limit::index;
  if (of_views)
    if (const auto operand = heaviest_operand(graph, group.nodes)) {
      cuts.copied.insert(*operand);
      return;
    }
  if (const auto cut = find_cut(graph, group, excess)) {
    cuts.stored.insert(*cut);
    return;
  }
  if (!alone || !add_steps(graph, last, excess, cuts)) refuse(graph, last, excess);
}

void split_operator(const Graph& graph, NodeId node, const Excess& excess, Cuts& cuts) {
  const Limit broken = excess.fit.broken;
  if (broken == Limit::binding || (broken == Limit::index && excess.fit.buffer >= 0))
    refuse(graph, node, excess);
  if (const auto operand = heaviest_operand(graph, {node}))
    cuts.copied.insert(*operand);
  else if (!add_steps(graph, node, excess, cuts))
    refuse(graph, node, excess);
}

}  // namespace fluxion::plan
