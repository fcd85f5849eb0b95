#include "engine/plan/kernel_graph.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "engine/error.h"
#include "engine/plan/tape_edit.h"

namespace fluxion::plan {

namespace {

[[noreturn]] void throw_circle() {
  throw Error("plan: the kernels depend on each other in a circle; this is a planner error");
}

}  // namespace

KernelId KernelGraph::add(std::int64_t place) {
  const KernelId made(std::ssize(kernels_));
  return kernels_.add({made, place, {}, {}, 0});
}

KernelId KernelGraph::of(KernelId k) const {
  while (kernels_[k].into != k) k = kernels_[k].into;
  return k;
}

std::vector<KernelId> KernelGraph::distinct(KernelId k, const std::vector<KernelId>& list) const {
  std::vector<KernelId> result;
  for (const KernelId other : list)
    if (of(other) != k) result.push_back(of(other));
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

void KernelGraph::connect(KernelId from, KernelId to) {
  from = of(from), to = of(to);
  if (from == to) return;
  auto& users = kernels_[from].users;
  if (std::find(users.begin(), users.end(), to) != users.end()) return;
  users.push_back(to);
  kernels_[to].sources.push_back(from);
  restore(from, to);
}

void KernelGraph::restore(KernelId from, KernelId to) {
  const std::int64_t begin = kernels_[to].place, end = kernels_[from].place;
  if (end < begin) return;
  // Of the kernels placed between the two, those that need `to` must move behind those that `from`
  // needs: the latter get the first of all their places, the former the last.
  const auto spread = [&](KernelId start, auto next, auto within) {
    std::vector<KernelId> found{start};
    kernels_[start].seen = search_;
    for (std::size_t i = 0; i < found.size(); ++i)
      for (const KernelId part : kernels_[found[i]].*next) {
        const KernelId k = of(part);
        if (kernels_[k].seen == search_ || !within(kernels_[k].place)) continue;
        kernels_[k].seen = search_;
        found.push_back(k);
      }
    std::sort(found.begin(), found.end(),
              [&](KernelId a, KernelId b) { return kernels_[a].place < kernels_[b].place; });
    return found;
  };
  ++search_;
  const std::vector<KernelId> after =
      spread(to, &Kernel::users, [&](std::int64_t place) { return place <= end; });
  if (kernels_[from].seen == search_) throw_circle();
  ++search_;
  std::vector<KernelId> moved =
      spread(from, &Kernel::sources, [&](std::int64_t place) { return place >= begin; });
  moved.insert(moved.end(), after.begin(), after.end());
  std::vector<std::int64_t> places;
  for (const KernelId k : moved) places.push_back(kernels_[k].place);
  std::sort(places.begin(), places.end());
  for (std::size_t i = 0; i < moved.size(); ++i) kernels_[moved[i]].place = places[i];
}

void KernelGraph::merge(KernelId into, KernelId gone) {
  Kernel &one = kernels_[into], &other = kernels_[gone];
  other.into = into;
  const auto take = [](std::vector<KernelId>& to, std::vector<KernelId>& from) {
    to.insert(to.end(), from.begin(), from.end());
    from = {};
  };
  take(one.users, other.users);
  take(one.sources, other.sources);
  one.users = distinct(into, one.users);
  one.sources = distinct(into, one.sources);
  reorder_around(into);
}

// restore() handles one new dependence and relies on all others being in order. After a merge,
// several may be out of order at once: sort all kernels between their ends.
void KernelGraph::reorder_around(KernelId k) {
  const std::int64_t place = kernels_[k].place;
  std::int64_t begin = place, end = place;
  for (const KernelId user : kernels_[k].users) begin = std::min(begin, kernels_[of(user)].place);
  for (const KernelId source : kernels_[k].sources) end = std::max(end, kernels_[of(source)].place);
  if (begin == place && end == place) return;
  const auto between = [&](KernelId other) {
    return kernels_[other].place >= begin && kernels_[other].place <= end;
  };
  std::vector<KernelId> window;
  for (const KernelId other : kernels_.ids())
    if (alive(other) && between(other)) window.push_back(other);
  std::vector<std::int64_t> places;
  for (const KernelId other : window) places.push_back(kernels_[other].place);
  std::sort(places.begin(), places.end());

  // Of the kernels that wait for nothing in the window, take the earliest first.
  std::map<KernelId, std::size_t> waiting;
  std::set<std::pair<std::int64_t, KernelId>> ready;
  for (const KernelId other : window) {
    const std::vector<KernelId> before = sources(other);
    waiting[other] = static_cast<std::size_t>(std::count_if(before.begin(), before.end(), between));
    if (waiting[other] == 0) ready.insert({kernels_[other].place, other});
  }
  std::vector<KernelId> order;
  while (!ready.empty()) {
    const KernelId next = ready.begin()->second;
    ready.erase(ready.begin());
    order.push_back(next);
    for (const KernelId user : users(next))
      if (between(user) && --waiting[user] == 0) ready.insert({kernels_[user].place, user});
  }
  if (order.size() != window.size()) throw_circle();
  for (std::size_t i = 0; i < order.size(); ++i) kernels_[order[i]].place = places[i];
}

void KernelGraph::merge(std::span<const KernelId> merged) {
  // Merge in topological order: merging the first and the last before one between them, through
  // which they depend on each other, would make a cycle.
  std::vector<KernelId> order(merged.begin(), merged.end());
  std::sort(order.begin(), order.end(),
            [&](KernelId a, KernelId b) { return kernels_[a].place < kernels_[b].place; });
  KernelId whole = order[0];
  for (std::size_t i = 1; i < order.size(); ++i) {
    const bool stays = order[i] == merged[0];
    merge(stays ? order[i] : whole, stays ? whole : order[i]);
    if (stays) whole = order[i];
  }
}

void KernelGraph::visit(KernelId k, std::int64_t end) {
  if (kernels_[k].place >= end || kernels_[k].seen == search_) return;
  kernels_[k].seen = search_;
  frontier_.push_back(k);
}

bool KernelGraph::meets_target(std::int64_t end) {
  // Breadth first: paths, where there are any, are usually short.
  for (std::size_t i = 0; i < frontier_.size(); ++i)
    for (const KernelId part : kernels_[frontier_[i]].users) {
      const KernelId user = of(part);
      if (kernels_[user].seen == -search_) return true;
      visit(user, end);
    }
  return false;
}

bool KernelGraph::depends(KernelId to, KernelId from) {
  const std::int64_t end = kernels_[to].place;
  ++search_;
  frontier_.clear();
  kernels_[to].seen = -search_;
  visit(from, end);
  return meets_target(end);
}

bool KernelGraph::would_cycle(std::span<const KernelId> merged, std::span<const KernelId> readers) {
  ++search_;
  frontier_.clear();
  std::int64_t end = std::numeric_limits<std::int64_t>::min();
  for (const KernelId k : merged) {
    kernels_[k].seen = -search_;
    end = std::max(end, kernels_[k].place);
  }
  const auto begin_at = [&](KernelId k) {
    if (kernels_[k].seen != -search_) visit(k, end);
  };
  for (const KernelId k : readers) begin_at(k);
  for (const KernelId k : merged)
    for (const KernelId user : kernels_[k].users) begin_at(of(user));
  return meets_target(end);
}

Indexed<KernelId, bool> KernelGraph::related(KernelId k) const {
  Indexed<KernelId, bool> result(kernels_.size());
  for (const auto next : {&Kernel::users, &Kernel::sources}) {
    std::vector<KernelId> pending{k};
    while (!pending.empty()) {
      const KernelId last = pending.back();
      pending.pop_back();
      for (const KernelId part : kernels_[last].*next)
        if (const KernelId other = of(part); !result[other]) {
          result[other] = true;
          pending.push_back(other);
        }
    }
  }
  return result;
}

Traffic::Traffic(const Kernels& made, std::size_t buffers)
    : writer(buffers), readers(buffers), kernels(made.size()) {
  for (const KernelId k : made.ids()) {
    for (const BufferId buffer : reads(made[k].kernel)) readers[buffer].push_back(k);
    for (const BufferId buffer : writes(made[k].kernel)) writer[buffer] = k;
  }
}

KernelGraph Traffic::dependences() const {
  KernelGraph graph;
  for (std::size_t k = 0; k < kernels; ++k) graph.add_last();
  for (const BufferId buffer : writer.ids())
    if (writer[buffer])
      for (const KernelId reader : readers[buffer]) graph.connect(writer[buffer], reader);
  return graph;
}

}  // namespace fluxion::plan
