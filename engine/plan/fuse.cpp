#include "engine/plan/fuse.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "engine/plan/view.h"

namespace fluxion::plan {

bool Space::reduces() const {
  return std::find(reduced.begin(), reduced.end(), true) != reduced.end();
}

Dims Space::kept() const {
  Dims result;
  for (std::size_t k = 0; k < sizes.size(); ++k)
    if (!reduced[k]) result.push_back(sizes[k]);
  return result;
}

std::int64_t Space::row_elements() const {
  std::int64_t count = 1;
  for (std::size_t k = 0; k < sizes.size(); ++k)
    if (reduced[k]) count *= sizes[k];
  return count;
}

Dims squeeze(const Shape& shape) {
  Dims result;
  for (const std::int64_t size : shape)
    if (size != 1) result.push_back(size);
  return result;
}

std::optional<Point> canonical_point(const Space& space, const Shape& shape,
                                     const std::vector<Affine>& axes, std::size_t kernel_axes) {
  const Dims sizes = squeeze(shape);
  const bool wide = sizes == space.sizes;
  if (!wide && !(space.reduces() && sizes == space.kept())) return std::nullopt;
  Point point;
  std::size_t k = 0;
  for (const std::int64_t size : shape) {
    if (size == 1) {
      point.push_back(constant_affine(0, kernel_axes));
      continue;
    }
    while (!wide && space.reduced[k]) ++k;
    point.push_back(axes[k++]);
  }
  return point;
}

namespace {

// Formats that exist in memory only: rounding to them happens when they are stored.
bool storage_only(DType dtype) {
  return dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::u8 || dtype == DType::i64;
}

class Fuser {
 public:
  Fuser(const Graph& graph, const Capabilities& device, const std::set<std::int32_t>& stored)
      : graph_(graph), limits_(device.limits), costs_(device.costs), stored_(stored) {}

  std::vector<Group> run() {
    find_uses();
    find_sources();
    find_row_spaces();
    for (std::size_t i = graph_.nodes.size(); i-- > 0;)
      if (fusible(static_cast<std::int32_t>(i)))
        place(static_cast<std::int32_t>(i));
      else
        rank_[i] = rank_above_users(static_cast<std::int32_t>(i));
    return collect();
  }

 private:
  struct Use {
    std::int32_t user;
    std::int32_t operand;
  };
  // Where a node is computed. `canonical`: at the very points of the group's space, not through a
  // view.
  struct Host {
    std::int32_t group;
    bool canonical;
  };
  struct Building {
    Space space;
    std::set<std::int32_t> nodes;
    std::int32_t rank = 0;  // lies above those of all kernels that need this one
    bool alive = true;
  };

  const GraphNode& node(std::int32_t n) const { return graph_.nodes[static_cast<std::size_t>(n)]; }
  OpClass op_class(std::int32_t n) const { return info(node(n).op).op_class; }
  bool fusible(std::int32_t n) const {
    return op_class(n) == OpClass::elementwise || op_class(n) == OpClass::reduction;
  }
  const Shape& shape(std::int32_t n) const { return node(n).outputs[0].shape; }
  // Whether n's users read it from memory, never from a register.
  bool memory_only(std::int32_t n) const {
    return storage_only(node(n).outputs[0].dtype) || stored_.contains(n);
  }

  // The values outside of movement ops that an operand reads.
  template <class F>
  void for_sources(Value value, F&& f) const {
    std::vector<Value> pending{value};
    while (!pending.empty()) {
      const Value next = pending.back();
      pending.pop_back();
      if (info(graph_[next].op).op_class != OpClass::movement) {
        f(next);
        continue;
      }
      for (const Value input : graph_[next].inputs) pending.push_back(input);
    }
  }

  void find_uses() {
    const std::size_t count = graph_.nodes.size();
    uses_.resize(count);
    hosts_.resize(count);
    rank_.assign(count, 0);
    external_.assign(count, false);
    copied_.assign(count, false);
    for (std::size_t i = 0; i < count; ++i) {
      const OpClass c = op_class(static_cast<std::int32_t>(i));
      if (c == OpClass::leaf || c == OpClass::movement) continue;
      for (std::size_t k = 0; k < graph_.nodes[i].inputs.size(); ++k) {
        std::set<std::int32_t> seen;
        for_sources(graph_.nodes[i].inputs[k], [&](Value source) {
          if (!seen.insert(source.node).second) return;
          uses_[static_cast<std::size_t>(source.node)].push_back(
              {static_cast<std::int32_t>(i), static_cast<std::int32_t>(k)});
          if (!fusible(static_cast<std::int32_t>(i)) || memory_only(source.node))
            external_[static_cast<std::size_t>(source.node)] = true;
        });
      }
    }
    for (const Value output : graph_.outputs)
      external_[static_cast<std::size_t>(output.node)] = true;
  }

  // For each reduction, and each elementwise node that computes on its results: the space it
  // reduces.
  void find_row_spaces() {
    row_space_.resize(graph_.nodes.size());
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const auto n = static_cast<std::int32_t>(i);
      if (op_class(n) == OpClass::reduction) row_space_[i] = own_space(n);
      if (op_class(n) != OpClass::elementwise) continue;
      for (const Value input : node(n).inputs)
        for_sources(input, [&](Value source) {
          const auto& rows = row_space_[static_cast<std::size_t>(source.node)];
          if (!row_space_[i] && rows && rows->kept() == squeeze(shape(n))) row_space_[i] = rows;
        });
    }
  }

  // For each elementwise node: the values in memory that it could be computed from, and by how many
  // ops.
  void find_sources() {
    sources_.resize(graph_.nodes.size());
    cost_.assign(graph_.nodes.size(), 0);
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const auto n = static_cast<std::int32_t>(i);
      if (op_class(n) != OpClass::elementwise || node(n).op == Op::identity || memory_only(n))
        continue;
      std::set<std::int32_t> sources;
      int cost = 1;
      for (const Value input : node(n).inputs)
        for_sources(input, [&](Value source) {
          const OpClass c = op_class(source.node);
          if (c == OpClass::leaf && node(source.node).op != Op::parameter) return;
          const auto& inner = sources_[static_cast<std::size_t>(source.node)];
          if (c == OpClass::elementwise && cost_[static_cast<std::size_t>(source.node)] > 0) {
            sources.insert(inner.begin(), inner.end());
            cost += cost_[static_cast<std::size_t>(source.node)];
          } else {
            sources.insert(source.node);
          }
        });
      if (std::ssize(sources) > costs_.max_recomputed_sources || cost > costs_.max_recomputed_ops)
        continue;  // cost 0: a source itself
      sources_[i] = std::move(sources);
      cost_[i] = cost;
    }
  }

  bool worth_recomputing(std::int32_t n, bool stretched) const {
    const auto i = static_cast<std::size_t>(n);
    if (op_class(n) != OpClass::elementwise || cost_[i] == 0) return false;
    if (stretched &&
        (info(node(n).op).cost == OpCost::transcendental || cost_[i] > costs_.max_stretched_ops))
      return false;
    const std::size_t bytes = node(n).outputs[0].bytes();
    std::size_t source_bytes = 0;
    for (const std::int32_t source : sources_[i])
      source_bytes += std::min(bytes, node(source).outputs[0].bytes());
    return static_cast<double>(source_bytes) <=
           costs_.max_source_bytes * static_cast<double>(bytes);
  }

  // ---- groups

  std::int32_t root(std::int32_t group) const {
    while (parent_[static_cast<std::size_t>(group)] != group)
      group = parent_[static_cast<std::size_t>(group)];
    return group;
  }

  static std::optional<Space> unify(const Space& a, const Space& b) {
    if (a == b) return a;
    if (!a.reduces() && (a.sizes == b.sizes || (b.reduces() && a.sizes == b.kept()))) return b;
    if (!b.reduces() && (b.sizes == a.sizes || (a.reduces() && b.sizes == a.kept()))) return a;
    return std::nullopt;
  }

  Space own_space(std::int32_t n) const {
    Space space;
    const bool reduction = op_class(n) == OpClass::reduction;
    const Shape& wide = reduction ? graph_.type(node(n).inputs[0]).shape : shape(n);
    for (std::int64_t axis = 0; axis < wide.rank(); ++axis) {
      if (wide[axis] == 1) continue;
      space.sizes.push_back(wide[axis]);
      const Dims* axes = reduction ? &std::get<AxesAttributes>(node(n).attributes).axes : nullptr;
      space.reduced.push_back(axes && std::find(axes->begin(), axes->end(), axis) != axes->end());
    }
    return space;
  }

  // Over the axes of the space itself.
  static std::optional<Point> own_point(const Space& space, const Shape& shape) {
    std::vector<Affine> axes;
    for (std::size_t k = 0; k < space.sizes.size(); ++k)
      axes.push_back(axis_affine(k, space.sizes.size()));
    return canonical_point(space, shape, axes, axes.size());
  }

  // Whether operand `operand` of `user`, computed at the points of the space, reads value n at
  // those points too - or at the row's, for a narrow n.
  bool canonical_edge(const Space& space, std::int32_t user, std::int32_t operand,
                      std::int32_t n) const {
    const Value value = node(user).inputs[static_cast<std::size_t>(operand)];
    const Shape& read = graph_.type(value).shape;
    const auto here = op_class(user) == OpClass::reduction ? own_point(wide_only(space), read)
                                                           : own_point(space, read);
    const auto there = own_point(space, shape(n));
    if (!here || !there) return false;
    IterationSpace iteration{space.sizes, 0};
    Point point = *here;
    Value at = value;
    while (at.node != n) {
      const GraphNode& movement = graph_[at];
      if (info(movement.op).op_class != OpClass::movement || movement.op == Op::pad ||
          movement.op == Op::concat)
        return false;
      Step step = follow(movement, graph_.type(movement.inputs[0]).shape, 0, point, iteration);
      if (step.outcome != Step::Outcome::followed) return false;
      point = std::move(step.point);
      at = movement.inputs[0];
    }
    const std::size_t axes = space.sizes.size();
    return linear_address(point, shape(n), axes) == linear_address(*there, shape(n), axes);
  }

  static Space wide_only(Space space) {
    std::fill(space.reduced.begin(), space.reduced.end(), false);
    return space;
  }

  // An upper bound of a kernel's size: every distinct operand that comes from outside is a load.
  bool within_limits(const std::set<std::int32_t>& nodes) const {
    std::set<std::pair<std::int32_t, std::int32_t>> loads;
    int stores = 0;
    for (const std::int32_t n : nodes) {
      for (const Value input : node(n).inputs) {
        if (nodes.contains(input.node)) continue;
        for_sources(input, [&](Value source) {
          if (!nodes.contains(source.node) &&
              !(op_class(source.node) == OpClass::leaf && node(source.node).op != Op::parameter))
            loads.insert({input.node, source.node});
        });
      }
      bool stored = external_[static_cast<std::size_t>(n)];
      for (const Use& use : uses_[static_cast<std::size_t>(n)])
        stored = stored || !nodes.contains(use.user);
      stores += stored && !copied_[static_cast<std::size_t>(n)] ? 1 : 0;
      if (static_cast<int>(loads.size()) > limits_.max_loads || stores > limits_.max_stores)
        return false;
    }
    return static_cast<int>(2 * nodes.size() + loads.size()) <= limits_.max_instructions;
  }

  // Whether one of the nodes would read from a register what must be read from memory.
  bool reads_a_register(const std::set<std::int32_t>& nodes) const {
    for (const std::int32_t n : nodes) {
      if (!memory_only(n)) continue;
      for (const Use& use : uses_[static_cast<std::size_t>(n)])
        if (nodes.contains(use.user)) return true;
    }
    return false;
  }

  // A row that must stay resident: some wide value of the group depends on a reduction in it.
  bool rows_fit(const Space& space, const std::set<std::int32_t>& nodes) const {
    if (!space.reduces()) return true;
    std::int64_t rows = 1;
    for (const std::int64_t size : space.kept()) rows *= size;
    const std::int64_t row = space.row_elements();
    if (row <= limits_.max_row_elements &&
        (rows >= costs_.min_resident_rows || row <= costs_.max_lonely_row))
      return true;
    std::set<std::int32_t> tainted;
    for (const std::int32_t n : nodes) {
      bool depends = false;
      for (const Value input : node(n).inputs)
        for_sources(input,
                    [&](Value source) { depends = depends || tainted.contains(source.node); });
      const bool wide = op_class(n) == OpClass::reduction || squeeze(shape(n)) == space.sizes;
      if (depends && wide) return false;
      if (depends || op_class(n) == OpClass::reduction) tainted.insert(n);
    }
    return true;
  }

  // ---- dependences between kernels

  // Calls f for each node of the group but copies: they feed their own group only.
  template <class F>
  void for_members(std::int32_t group, F&& f) const {
    for (const std::int32_t n : groups_[static_cast<std::size_t>(group)].nodes)
      if (!copied_[static_cast<std::size_t>(n)]) f(n);
  }

  // Ranks fall along every path from kernel to kernel: a search ends where they are no longer above
  // that of what is looked for. Operators that don't fuse have ranks of their own.
  std::int32_t rank_above_users(std::int32_t n, std::int32_t except = -1) const {
    std::int32_t rank = 0;
    for (const Use& use : uses_[static_cast<std::size_t>(n)]) {
      if (!fusible(use.user)) rank = std::max(rank, rank_[static_cast<std::size_t>(use.user)] + 1);
      for (const Host& host : hosts_[static_cast<std::size_t>(use.user)])
        if (const std::int32_t g = root(host.group); g != except)
          rank = std::max(rank, groups_[static_cast<std::size_t>(g)].rank + 1);
    }
    return rank;
  }

  // Group `group` has grown, and ranks `rank` now; all that it needs among the nodes placed so far,
  // `first` and after, ranks above it again.
  void lift(std::int32_t group, std::int32_t rank, std::int32_t first) {
    std::vector<std::pair<std::int32_t, std::int32_t>>
        pending;  // (node, the rank that its kernel must have at least)
    const auto lift_sources = [&](std::int32_t user, std::int32_t least) {
      for (const Value input : node(user).inputs)
        for_sources(input, [&](Value source) {
          if (source.node >= first && op_class(source.node) != OpClass::leaf)
            pending.push_back({source.node, least});
        });
    };
    const auto lift_group = [&](std::int32_t g, std::int32_t to) {
      Building& building = groups_[static_cast<std::size_t>(g)];
      building.rank = to;
      const std::size_t before = pending.size();
      for (const std::int32_t n : building.nodes) lift_sources(n, to + 1);
      const auto own = [&](const auto& source) { return building.nodes.contains(source.first); };
      pending.erase(
          std::remove_if(pending.begin() + static_cast<std::ptrdiff_t>(before), pending.end(), own),
          pending.end());
    };
    lift_group(group, rank);
    while (!pending.empty()) {
      const auto [n, least] = pending.back();
      pending.pop_back();
      // A rank counts joined nodes beside kernels: where one fed the other directly, their group
      // keeps the higher rank.
      if (static_cast<std::size_t>(least) > 2 * graph_.nodes.size())
        throw Error("plan: groups depend on each other in a circle; this is a planner error");
      if (!fusible(n)) {
        if (rank_[static_cast<std::size_t>(n)] >= least) continue;
        rank_[static_cast<std::size_t>(n)] = least;
        lift_sources(n, least + 1);
      } else if (!copied_[static_cast<std::size_t>(n)]) {
        const std::int32_t g = root(hosts_[static_cast<std::size_t>(n)][0].group);
        if (groups_[static_cast<std::size_t>(g)].rank < least) lift_group(g, least);
      }
    }
  }

  // A search for the kernels that need values of some: of those that it `begins` at, groups or
  // operators that don't fuse.
  void begin_search() {
    ++stamp_;
    visited_group_.resize(groups_.size(), 0);
    visited_node_.resize(graph_.nodes.size(), 0);
    frontier_.clear();
  }

  // Goes on from a kernel, once, if it may lead to a group of rank `end`.
  void search_from_group(std::int32_t group, std::int32_t end) {
    if (groups_[static_cast<std::size_t>(group)].rank <= end) return;
    if (std::exchange(visited_group_[static_cast<std::size_t>(group)], stamp_) == stamp_) return;
    for_members(group, [&](std::int32_t n) { frontier_.push_back(n); });
  }
  void search_from_operator(std::int32_t n, std::int32_t end) {
    if (rank_[static_cast<std::size_t>(n)] <= end) return;
    if (std::exchange(visited_node_[static_cast<std::size_t>(n)], stamp_) != stamp_)
      frontier_.push_back(n);
  }

  // Whether group `to` needs a value of those kernels, directly (if that counts) or through others.
  // A group's members run together, so what reaches one of them reaches all that any of them feeds.
  // The nearest first: where there is a path there is a short one, mostly.
  bool search_reaches(std::int32_t to, bool directly) {
    const std::int32_t end = groups_[static_cast<std::size_t>(to)].rank;
    const std::size_t begun = frontier_.size();
    for (std::size_t i = 0; i < frontier_.size(); ++i) {
      const bool counts = directly || i >= begun;
      for (const Use& use : uses_[static_cast<std::size_t>(frontier_[i])]) {
        if (!fusible(use.user)) search_from_operator(use.user, end);
        for (const Host& host : hosts_[static_cast<std::size_t>(use.user)]) {
          const std::int32_t g = root(host.group);
          if (g == to && counts) return true;
          search_from_group(g, end);
        }
      }
    }
    return false;
  }

  // Whether a path leads from one group to the other through something outside of both: they can't
  // be one kernel then.
  bool path_around(std::int32_t from, std::int32_t to) {
    begin_search();
    search_from_group(from, groups_[static_cast<std::size_t>(to)].rank);
    return search_reaches(to, false);
  }

  // Whether a user of n outside of the groups `merged` must run before `group`, which is one of
  // them.
  bool users_precede(std::int32_t n, std::int32_t group, const std::set<std::int32_t>& merged) {
    const std::int32_t end = groups_[static_cast<std::size_t>(group)].rank;
    begin_search();
    for (const Use& use : uses_[static_cast<std::size_t>(n)]) {
      if (!fusible(use.user)) search_from_operator(use.user, end);
      for (const Host& host : hosts_[static_cast<std::size_t>(use.user)])
        if (const std::int32_t g = root(host.group); !merged.contains(g)) search_from_group(g, end);
    }
    return search_reaches(group, true);
  }

  // Whether all that group b reads of group a's members is read at the points where a computes it,
  // as one kernel must.
  bool reads_at_its_points(std::int32_t a, std::int32_t b, const Space& space) const {
    bool all = true;
    for_members(a, [&](std::int32_t n) {
      for (const Use& use : uses_[static_cast<std::size_t>(n)])
        for (const Host& host : hosts_[static_cast<std::size_t>(use.user)])
          all = all && (root(host.group) != b ||
                        (host.canonical && canonical_edge(space, use.user, use.operand, n)));
    });
    return all;
  }

  // ---- placing a node

  // Reads a contraction's result element for element and must be stored anyway: better that
  // contraction's epilogue than part of a reduction.
  bool wants_epilogue(std::int32_t n) const {
    if (op_class(n) != OpClass::elementwise) return false;
    std::set<std::int32_t> sources = sources_[static_cast<std::size_t>(n)];
    for (const Value input : node(n).inputs) sources.insert(peel_reshapes(graph_, input).node);
    bool of_contraction = false;
    for (const std::int32_t source : sources) {
      if (op_class(source) == OpClass::reduction)
        return false;  // it can't be known when the contraction's tile is done
      of_contraction = of_contraction || (op_class(source) == OpClass::contraction &&
                                          shape(source).elements() == shape(n).elements());
    }
    return of_contraction;
  }

  std::set<std::int32_t> user_groups(std::int32_t n) const {
    std::set<std::int32_t> groups;
    for (const Use& use : uses_[static_cast<std::size_t>(n)])
      for (const Host& host : hosts_[static_cast<std::size_t>(use.user)])
        groups.insert(root(host.group));
    return groups;
  }

  // Joins n to `groups` (all merged) if that keeps every rule; n must be read at canonical points
  // there. `rest`: n has users elsewhere too.
  bool join(std::int32_t n, const std::set<std::int32_t>& groups, bool rest) {
    // What follows from a reduction is computed once a row, beside the reduction, if the users'
    // group has such rows.
    const auto& rows = row_space_[static_cast<std::size_t>(n)];
    return (rows && !rest && op_class(n) == OpClass::elementwise && join(n, groups, rest, *rows)) ||
           join(n, groups, rest, own_space(n));
  }

  bool join(std::int32_t n, const std::set<std::int32_t>& groups, bool rest,
            std::optional<Space> space) {
    for (const std::int32_t g : groups) {
      space = unify(*space, groups_[static_cast<std::size_t>(g)].space);
      if (!space) return false;
    }
    if (op_class(n) == OpClass::reduction && *space != own_space(n)) return false;
    if (!own_point(*space, shape(n))) return false;
    if (space->reduces() && (rest || external_[static_cast<std::size_t>(n)]) && wants_epilogue(n))
      return false;
    for (const Use& use : uses_[static_cast<std::size_t>(n)])
      for (const Host& host : hosts_[static_cast<std::size_t>(use.user)]) {
        if (!groups.contains(root(host.group))) continue;
        if (!host.canonical || !canonical_edge(*space, use.user, use.operand, n)) return false;
      }
    std::set<std::int32_t> nodes{n};
    for (const std::int32_t g : groups)
      nodes.insert(groups_[static_cast<std::size_t>(g)].nodes.begin(),
                   groups_[static_cast<std::size_t>(g)].nodes.end());
    if (!within_limits(nodes) || !rows_fit(*space, nodes) || reads_a_register(nodes)) return false;
    for (const std::int32_t a : groups)
      for (const std::int32_t b : groups)
        if (a != b && (path_around(a, b) || !reads_at_its_points(a, b, *space))) return false;
    if (external_[static_cast<std::size_t>(n)] || rest)
      for (const std::int32_t g : groups)
        if (users_precede(n, g, groups)) return false;

    const std::int32_t into = *groups.begin();
    std::int32_t lowest = std::numeric_limits<std::int32_t>::max(), highest = 0;
    for (const std::int32_t g : groups) {
      lowest = std::min(lowest, groups_[static_cast<std::size_t>(g)].rank);
      highest = std::max(highest, groups_[static_cast<std::size_t>(g)].rank);
      if (g == into) continue;
      parent_[static_cast<std::size_t>(g)] = into;
      groups_[static_cast<std::size_t>(g)].alive = false;
      groups_[static_cast<std::size_t>(g)].nodes.clear();
    }
    groups_[static_cast<std::size_t>(into)].space = *space;
    groups_[static_cast<std::size_t>(into)].nodes = std::move(nodes);
    hosts_[static_cast<std::size_t>(n)] = {{into, true}};
    highest = std::max(highest, rank_above_users(n, into));
    if (highest > lowest) lift(into, highest, n);
    return true;
  }

  // Computes n again wherever it is used.
  bool recompute(std::int32_t n, const std::set<std::int32_t>& groups) {
    bool stretched = false;
    for (const Use& use : uses_[static_cast<std::size_t>(n)])
      stretched = stretched || shape(use.user).elements() > shape(n).elements() ||
                  (op_class(use.user) == OpClass::reduction &&
                   graph_.type(node(use.user).inputs[0]).shape.elements() > shape(n).elements());
    if (!worth_recomputing(n, stretched)) return false;
    for (const std::int32_t g : groups) {
      std::set<std::int32_t> nodes = groups_[static_cast<std::size_t>(g)].nodes;
      nodes.insert(n);
      if (!within_limits(nodes)) return false;
    }
    for (const std::int32_t g : groups) {
      bool canonical = own_point(groups_[static_cast<std::size_t>(g)].space, shape(n)).has_value();
      for (const Use& use : uses_[static_cast<std::size_t>(n)])
        for (const Host& host : hosts_[static_cast<std::size_t>(use.user)])
          if (root(host.group) == g)
            canonical = canonical && host.canonical &&
                        canonical_edge(groups_[static_cast<std::size_t>(g)].space, use.user,
                                       use.operand, n);
      groups_[static_cast<std::size_t>(g)].nodes.insert(n);
      hosts_[static_cast<std::size_t>(n)].push_back({g, canonical});
    }
    copied_[static_cast<std::size_t>(n)] = true;
    return true;
  }

  void place(std::int32_t n) {
    const std::set<std::int32_t> groups = user_groups(n);
    if (!groups.empty() && !memory_only(n)) {
      if (join(n, groups, false)) return;
      if (!external_[static_cast<std::size_t>(n)] && recompute(n, groups)) return;
      // Stored by one of its users' groups, the earliest that may, and loaded by the others.
      std::vector<std::int32_t> order(groups.begin(), groups.end());
      std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
        return *groups_[static_cast<std::size_t>(a)].nodes.begin() <
               *groups_[static_cast<std::size_t>(b)].nodes.begin();
      });
      if (groups.size() > 1)
        for (const std::int32_t g : order)
          if (join(n, {g}, true)) return;
    }
    const auto fresh = static_cast<std::int32_t>(groups_.size());
    groups_.push_back({own_space(n), {n}, rank_above_users(n)});
    parent_.push_back(fresh);
    hosts_[static_cast<std::size_t>(n)] = {{fresh, true}};
  }

  std::vector<Group> collect() {
    std::vector<Group> result;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      if (!groups_[g].alive) continue;
      Group group{groups_[g].space, {groups_[g].nodes.begin(), groups_[g].nodes.end()}, {}};
      for (const std::int32_t n : group.nodes) {
        if (copied_[static_cast<std::size_t>(n)]) continue;
        bool stored = external_[static_cast<std::size_t>(n)];
        for (const Use& use : uses_[static_cast<std::size_t>(n)])
          for (const Host& host : hosts_[static_cast<std::size_t>(use.user)])
            stored = stored || root(host.group) != static_cast<std::int32_t>(g);
        if (stored) group.stores.push_back(n);
      }
      result.push_back(std::move(group));
    }
    return result;
  }

  const Graph& graph_;
  const KernelLimits& limits_;
  const CostModel& costs_;
  const std::set<std::int32_t>& stored_;
  std::vector<std::vector<Use>> uses_;
  std::vector<std::vector<Host>> hosts_;
  std::vector<bool> external_;  // read by something that is no tape, or an output
  std::vector<bool> copied_;    // computed again wherever it is used
  std::vector<std::set<std::int32_t>> sources_;
  std::vector<int> cost_;
  std::vector<std::optional<Space>> row_space_;
  std::vector<Building> groups_;
  std::vector<std::int32_t> parent_;
  std::vector<std::int32_t> rank_;                 // of operators that don't fuse
  std::vector<int> visited_group_, visited_node_;  // by the search of this stamp
  std::vector<std::int32_t> frontier_;             // all that it has come to, the nearest first
  int stamp_ = 0;
};

}  // namespace

std::vector<Group> fuse(const Graph& prepared, const Capabilities& device,
                        const std::set<std::int32_t>& stored) {
  return Fuser(prepared, device, stored).run();
}

}  // namespace fluxion::plan
