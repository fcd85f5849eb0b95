// Kernels and who depends on whom, while kernels are made and merged.
//
// The graph keeps its kernels in an order in which every kernel comes before those that need its
// results (Pearce and Kelly, "A dynamic topological sort algorithm for directed acyclic graphs",
// 2006): a new dependence moves only what lies between its two ends, and a search for a path from
// one kernel to another ends at the place of the other.
#pragma once

#include <span>
#include <vector>

#include "engine/plan/lower.h"

namespace fluxion::plan {

class KernelGraph {
 public:
  // A kernel without dependences, at the begin or the end of the order.
  KernelId add_first() { return add(--first_); }
  KernelId add_last() { return add(++last_); }

  // `to` reads what `from` writes. Throws Error if `from` depends on `to`.
  void connect(KernelId from, KernelId to);

  // The kernel that k is a part of now: k itself, or what it was merged into.
  KernelId of(KernelId k) const;

  // Whether some result of `from` is needed, through whatever kernels, by `to`.
  bool depends(KernelId to, KernelId from);

  // Whether the kernels `merged`, as one kernel whose results `readers` read too, would wait for
  // itself: a path leads out of it and back.
  bool would_cycle(std::span<const KernelId> merged, std::span<const KernelId> readers = {});

  // One kernel, `into`, with the dependences of both. Throws Error if it would wait for itself.
  void merge(KernelId into, KernelId gone);
  // The same of all of `merged`; their first stays.
  void merge(std::span<const KernelId> merged);

  // Per kernel: whether it depends on k, or k on it.
  Indexed<KernelId, bool> related(KernelId k) const;

  // The kernels right after or before k, each once.
  std::vector<KernelId> users(KernelId k) const { return distinct(k, kernels_[k].users); }
  std::vector<KernelId> sources(KernelId k) const { return distinct(k, kernels_[k].sources); }

  bool alive(KernelId k) const { return kernels_[k].into == k; }
  std::size_t size() const { return kernels_.size(); }

 private:
  struct Kernel {
    KernelId into;  // itself until it is merged
    std::int64_t place = 0;
    std::vector<KernelId> users, sources;  // as they were: see of()
    std::int64_t seen = 0;                 // by the search of this number
  };

  KernelId add(std::int64_t place);
  std::vector<KernelId> distinct(KernelId k, const std::vector<KernelId>& of) const;
  // Moves kernels so that `from` lies before `to`.
  void restore(KernelId from, KernelId to);
  // Restores the order where dependences of `k` go against it.
  void reorder_around(KernelId k);
  // Goes on along `users` from the kernels in frontier_ to all that lie before `end`. Whether one
  // of `targets`, marked by -search_, was met.
  bool meets_target(std::int64_t end);
  void visit(KernelId k, std::int64_t end);

  Indexed<KernelId, Kernel> kernels_;
  std::int64_t first_ = 0, last_ = 0;  // places
  std::int64_t search_ = 0;
  std::vector<KernelId> frontier_;
};

// Who writes and who reads each buffer.
struct Traffic {
  Traffic(const Kernels& kernels, std::size_t buffers);
  // The kernels in the order that they are given in, as far as that can be.
  KernelGraph dependences() const;

  Indexed<BufferId, KernelId> writer;  // none of what is bound at the call
  Indexed<BufferId, std::vector<KernelId>> readers;
  std::size_t kernels = 0;
};

}  // namespace fluxion::plan
