#include "engine/plan/fuse.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "engine/graph/op_names.h"
#include "engine/plan/kernel_graph.h"
#include "engine/plan/policy.h"

namespace fluxion::plan {

namespace {

class Fuser {
 public:
  Fuser(const Graph& graph, const Capabilities& device, const std::set<NodeId>& stored)
      : graph_(graph),
        limits_(device.limits),
        stored_(stored),
        policy_(graph, device.costs, stored),
        nodes_(graph.nodes.size()) {}

  std::vector<Group> run() {
    find_uses();
    for (const NodeId n : graph_.nodes.reversed_ids()) {
      const OpClass c = op_class(n);
      if (fusible(n))
        place(n);
      else if (c != OpClass::leaf && c != OpClass::movement)
        add_kernel(n, {{}, {}, false});
    }
    return collect();
  }

 private:
  // A kernel that computes a node. `canonical`: at the points of the kernel's space, not through a
  // view.
  struct Host {
    KernelId kernel;
    bool canonical;
  };
  struct Node {
    std::vector<Use> uses;  // through movement ops
    std::vector<Host> hosts;
    bool external = false;  // an output, or read by a kernel that is not a tape
    bool copied = false;    // recomputed in each kernel that uses it
  };
  // A group under construction, or an operator that is its own kernel.
  struct Building {
    Space space;
    std::set<NodeId> nodes;
    bool fuses = true;
  };
  using KernelSet = std::set<KernelId>;

  OpClass op_class(NodeId n) const { return info(graph_[n].op).op_class; }
  bool fusible(NodeId n) const {
    return op_class(n) == OpClass::elementwise || op_class(n) == OpClass::reduction;
  }
  const Shape& shape(NodeId n) const { return graph_[n].outputs[0].shape; }
  // Whether n's users read it from memory, never from a register.
  bool memory_only(NodeId n) const {
    return !is_register(graph_[n].outputs[0].dtype) || stored_.contains(n);
  }

  void find_uses() {
    for (const NodeId user : graph_.nodes.ids()) {
      const OpClass c = op_class(user);
      if (c == OpClass::leaf || c == OpClass::movement) continue;
      for (std::int32_t k = 0; k < std::ssize(graph_[user].inputs); ++k) {
        std::set<NodeId> seen;
        for_sources(graph_, graph_[user].inputs[static_cast<std::size_t>(k)], [&](Value source) {
          if (!seen.insert(source.node).second) return;
          Node& node = nodes_[source.node];
          node.uses.push_back({user, k});
          node.external = node.external || !fusible(user) || memory_only(source.node);
        });
      }
    }
    for (const Value output : graph_.outputs) nodes_[output.node].external = true;
  }

  // Calls f(use, host) for each place where n is read.
  template <class F>
  void for_reads(NodeId n, F&& f) const {
    for (const Use use : nodes_[n].uses)
      for (const Host& host : nodes_[use.user].hosts)
        f(use, Host{dependences_.of(host.kernel), host.canonical});
  }

  KernelSet readers(NodeId n) const {
    KernelSet result;
    for_reads(n, [&](Use, Host host) { result.insert(host.kernel); });
    return result;
  }

  // Whether `kernel` reads n only at the points where a kernel over `space` computes it. Two
  // kernels can be merged only then.
  bool reads_in_place(NodeId n, KernelId kernel, const Space& space) const {
    bool all = true;
    for_reads(n, [&](Use use, Host host) {
      all = all && (host.kernel != kernel ||
                    (host.canonical && plan::reads_in_place(graph_, space, use, n)));
    });
    return all;
  }
  // The same for all members of another kernel. Copies feed their own kernel only.
  bool reads_in_place(const Building& from, KernelId kernel, const Space& space) const {
    return std::all_of(from.nodes.begin(), from.nodes.end(), [&](NodeId n) {
      return nodes_[n].copied || reads_in_place(n, kernel, space);
    });
  }

  // Checks an upper bound of a kernel's size: every distinct operand from outside is a load.
  bool within_limits(const std::set<NodeId>& nodes) const {
    std::set<std::pair<NodeId, NodeId>> loads;
    int stores = 0;
    for (const NodeId n : nodes) {
      for (const Value input : graph_[n].inputs) {
        if (nodes.contains(input.node)) continue;
        for_sources(graph_, input, [&](Value source) {
          if (!nodes.contains(source.node) && !is_literal(graph_[source]))
            loads.insert({input.node, source.node});
        });
      }
      const Node& node = nodes_[n];
      const bool stored =
          node.external || std::any_of(node.uses.begin(), node.uses.end(),
                                       [&](Use use) { return !nodes.contains(use.user); });
      stores += stored && !node.copied ? 1 : 0;
      if (std::ssize(loads) > limits_.max_loads || stores > limits_.max_stores) return false;
    }
    return std::ssize(nodes) * 2 + std::ssize(loads) <= limits_.max_instructions;
  }

  // Whether a kernel of these nodes would read a value from a register that must be read from
  // memory.
  bool reads_a_register(const std::set<NodeId>& nodes) const {
    return std::any_of(nodes.begin(), nodes.end(), [&](NodeId n) {
      const std::vector<Use>& uses = nodes_[n].uses;
      return memory_only(n) && std::any_of(uses.begin(), uses.end(),
                                           [&](Use use) { return nodes.contains(use.user); });
    });
  }

  // Whether the kernel can keep its rows resident, or need not: no wide value depends on a
  // reduction.
  bool rows_fit(const Space& space, const std::set<NodeId>& nodes) const {
    if (!space.reduces() ||
        (space.row_elements() <= limits_.max_row_elements && !policy_.rows_are_lonely(space)))
      return true;
    std::set<NodeId> tainted;
    for (const NodeId n : nodes) {
      bool depends = false;
      for (const Value input : graph_[n].inputs)
        for_sources(graph_, input,
                    [&](Value source) { depends = depends || tainted.contains(source.node); });
      const bool reduces = op_class(n) == OpClass::reduction;
      if (depends && (reduces || squeeze(shape(n)) == space.sizes)) return false;
      if (depends || reduces) tainted.insert(n);
    }
    return true;
  }

  KernelId add_kernel(NodeId n, Building building) {
    const KernelId made = dependences_.add_first();
    kernels_.add(std::move(building));
    host(n, made);
    return made;
  }

  void host(NodeId n, KernelId kernel) {
    nodes_[n].hosts = {{kernel, true}};
    for (const KernelId reader : readers(n)) dependences_.connect(kernel, reader);
  }

  // The values in memory that `nodes` are computed from, by the kernels chosen so far.
  std::set<NodeId> sources(const std::set<NodeId>& nodes) const {
    std::set<NodeId> result, seen = nodes;
    std::vector<NodeId> pending(nodes.begin(), nodes.end());
    while (!pending.empty()) {
      const NodeId n = pending.back();
      pending.pop_back();
      for (const Value input : graph_[n].inputs)
        for_sources(graph_, input, [&](Value source) {
          if (is_literal(graph_[source]) || !seen.insert(source.node).second) return;
          const Node& node = nodes_[source.node];
          if (op_class(source.node) == OpClass::elementwise && !node.external && node.hosts.empty())
            pending.push_back(source.node);
          else
            result.insert(source.node);
        });
    }
    return result;
  }

  std::size_t bytes(NodeId n) const {
    std::size_t sum = 0;
    for (const TensorType& type : graph_[n].outputs) sum += type.bytes();
    return sum;
  }
  std::size_t bytes(const std::set<NodeId>& nodes) const {
    std::size_t sum = 0;
    for (const NodeId n : nodes) sum += bytes(n);
    return sum;
  }

  // Whether the source is the caller's, or another kernel reads it that waits for `kernel`: then
  // reading it before `kernel` runs frees no memory.
  bool needed_after(NodeId source, KernelId kernel) {
    bool needed = graph_[source].op == Op::parameter;
    for_reads(source, [&](Use, Host host) {
      needed = needed || (host.kernel != kernel && dependences_.depends(host.kernel, kernel));
    });
    return needed;
  }

  // Whether n is a part of a sum whose rest is known only later, and what n adds need not be kept
  // until then. On its own it can be the epilogue of the product that is its last addend, which
  // costs no pass over memory. The gradients of a weight that many layers share are added so.
  bool is_early_sum(NodeId n, const KernelSet& groups) {
    const auto adds = [&](NodeId node) {
      return graph_[node].op == Op::add || graph_[node].op == Op::sub;
    };
    const std::vector<Use>& uses = nodes_[n].uses;
    if (nodes_[n].external || groups.size() != 1 || uses.size() != 1 || !adds(n) ||
        !adds(uses[0].user) || policy_.level(uses[0].user) <= policy_.level(n) ||
        !policy_.wants_epilogue(n))
      return false;
    const KernelId rest = *groups.begin();
    std::set<NodeId> freed = sources({n});
    std::erase_if(freed, [&](NodeId source) {
      return readers(source).contains(rest) || needed_after(source, rest);
    });
    return bytes(freed) > bytes(n);
  }

  // Whether n is a reduction that should not run in a kernel of other reductions: they read little
  // in common, and what n alone reads would be kept until all that they read is known.
  bool reduces_apart(NodeId n, KernelId group) {
    const std::set<NodeId>& others = kernels_[group].nodes;
    if (op_class(n) != OpClass::reduction ||
        std::none_of(others.begin(), others.end(),
                     [&](NodeId other) { return op_class(other) == OpClass::reduction; }))
      return false;
    const std::set<NodeId> own = sources({n});
    std::set<NodeId> theirs = sources(others), common, freed;
    theirs.erase(n);
    for (const NodeId source : own)
      if (theirs.contains(source))
        common.insert(source);
      else if (!needed_after(source, group))
        freed.insert(source);
    return bytes(freed) > bytes(n) && bytes(own) + bytes(theirs) > 4 * bytes(common);
  }

  // Whether the many kernels that read n should not become one: what each of them alone reads would
  // be kept until all of that is known, and is much more than reading n once saves.
  bool read_apart(NodeId n, const KernelSet& groups) {
    if (groups.size() < 3) return false;
    std::map<NodeId, KernelSet> read;
    for (const KernelId g : groups) {
      const Space& space = kernels_[g].space;
      if (shape(n).elements() != space.rows() * space.row_elements()) return false;
      for (const NodeId source : sources(kernels_[g].nodes))
        if (source != n) read[source].insert(g);
    }
    std::size_t kept = 0;
    for (const auto& [source, by] : read)
      if (by.size() == 1 && !needed_after(source, *by.begin())) kept += bytes(source);
    return kept > 4 * bytes(n);
  }

  // Merges `groups` and adds n, if every rule allows it; the groups must read n at canonical
  // points. `rest`: n has other readers too.
  bool join(NodeId n, const KernelSet& groups, bool rest) {
    // A value that depends on a reduction is computed once per row, next to the reduction, if the
    // users' group has such rows.
    const auto& rows = policy_.rows(n);
    return (rows && !rest && op_class(n) == OpClass::elementwise && join(n, groups, rest, *rows)) ||
           join(n, groups, rest, own_space(graph_, n));
  }

  bool join(NodeId n, const KernelSet& groups, bool rest, std::optional<Space> space) {
    std::set<NodeId> nodes{n};
    for (const KernelId g : groups) {
      space = common_space(*space, kernels_[g].space);
      if (!space) return false;
      nodes.insert(kernels_[g].nodes.begin(), kernels_[g].nodes.end());
    }
    if (op_class(n) == OpClass::reduction && *space != own_space(graph_, n)) return false;
    if (!canonical_point(*space, shape(n))) return false;
    if (space->reduces() && (rest || nodes_[n].external) && policy_.wants_epilogue(n)) return false;
    // A small value that is known early stays out: its other readers would have to wait for
    // everything that this kernel needs.
    if (rest && !policy_.rows(n) && shape(n).elements() < space->rows() * space->row_elements())
      return false;
    for (const KernelId g : groups)
      if (!reads_in_place(n, g, *space)) return false;
    if (!within_limits(nodes) || !rows_fit(*space, nodes) || reads_a_register(nodes)) return false;
    const std::vector<KernelId> merged(groups.begin(), groups.end());
    const KernelSet all = readers(n);
    if (dependences_.would_cycle(merged, std::vector<KernelId>(all.begin(), all.end())))
      return false;
    for (const KernelId a : groups)
      for (const KernelId b : groups)
        if (a != b && !reads_in_place(kernels_[a], b, *space)) return false;
    if (read_apart(n, groups) ||
        std::any_of(groups.begin(), groups.end(), [&](KernelId g) { return reduces_apart(n, g); }))
      return false;

    dependences_.merge(merged);
    for (std::size_t i = 1; i < merged.size(); ++i) kernels_[merged[i]] = {};
    kernels_[merged[0]] = {std::move(*space), std::move(nodes)};
    host(n, merged[0]);
    return true;
  }

  // Recomputes n in each of `groups`, if the policy and the limits allow it.
  bool recompute(NodeId n, const KernelSet& groups) {
    const auto stretches = [&](Use use) {
      const Value read = graph_[use.user].inputs[0];
      return shape(use.user).elements() > shape(n).elements() ||
             (op_class(use.user) == OpClass::reduction &&
              graph_.type(read).shape.elements() > shape(n).elements());
    };
    const std::vector<Use>& uses = nodes_[n].uses;
    if (!policy_.computes_again(n, std::any_of(uses.begin(), uses.end(), stretches))) return false;
    for (const KernelId g : groups) {
      std::set<NodeId> nodes = kernels_[g].nodes;
      nodes.insert(n);
      if (!within_limits(nodes)) return false;
    }
    for (const KernelId g : groups) {
      const Space& space = kernels_[g].space;
      const bool canonical =
          canonical_point(space, shape(n)).has_value() && reads_in_place(n, g, space);
      kernels_[g].nodes.insert(n);
      nodes_[n].hosts.push_back({g, canonical});
    }
    nodes_[n].copied = true;
    return true;
  }

  void place(NodeId n) {
    KernelSet groups = readers(n);
    std::erase_if(groups, [&](KernelId k) { return !kernels_[k].fuses; });
    if (!groups.empty() && !memory_only(n) && !is_early_sum(n, groups)) {
      if (join(n, groups, false)) return;
      if (!nodes_[n].external && recompute(n, groups)) return;
      // The earliest reader that can computes and stores n; the others load it.
      std::vector<KernelId> order(groups.begin(), groups.end());
      std::sort(order.begin(), order.end(), [&](KernelId a, KernelId b) {
        return *kernels_[a].nodes.begin() < *kernels_[b].nodes.begin();
      });
      if (groups.size() > 1)
        for (const KernelId g : order)
          if (join(n, {g}, true)) return;
    }
    add_kernel(n, {own_space(graph_, n), {n}});
  }

  std::vector<Group> collect() const {
    std::vector<Group> result;
    for (const KernelId k : kernels_.ids()) {
      if (!kernels_[k].fuses || kernels_[k].nodes.empty()) continue;
      Group group{kernels_[k].space, {kernels_[k].nodes.begin(), kernels_[k].nodes.end()}, {}};
      for (const NodeId n : group.nodes) {
        bool stored = nodes_[n].external;
        for_reads(n, [&](Use, Host host) { stored = stored || host.kernel != k; });
        if (stored && !nodes_[n].copied) group.stores.push_back(n);
      }
      result.push_back(std::move(group));
    }
    return result;
  }

  const Graph& graph_;
  const KernelLimits& limits_;
  const std::set<NodeId>& stored_;
  const FusionPolicy policy_;
  Indexed<NodeId, Node> nodes_;
  Indexed<KernelId, Building> kernels_;
  KernelGraph dependences_;  // between the kernels
};

}  // namespace

std::vector<Group> fuse(const Graph& prepared, const Capabilities& device,
                        const std::set<NodeId>& stored) {
  return Fuser(prepared, device, stored).run();
}

}  // namespace fluxion::plan
