// The dependences between kernels, while kernels are made and merged.
//
// The graph keeps its kernels in topological order: every kernel comes before those that need its
// results (Pearce and Kelly, "A dynamic topological sort algorithm for directed acyclic graphs",
// 2006). A new dependence moves only kernels between its two ends, and a search for a path stops at
// the place of its target.
#pragma once

#include <span>
#include <vector>

#include "engine/plan/lower.h"

namespace fluxion::plan {

class KernelGraph {
 public:
  // Adds a kernel without dependences at the beginning or the end of the order.
  KernelId add_first() { return add(--first_); }
  KernelId add_last() { return add(++last_); }

  // Adds a dependence: `to` reads what `from` writes. Throws Error if `from` depends on `to`.
  void connect(KernelId from, KernelId to);

  // The kernel that k is now part of: k itself, or the one it was merged into.
  KernelId of(KernelId k) const;

  // Whether `to` needs a result of `from`, directly or through other kernels.
  bool depends(KernelId to, KernelId from);

  // Whether merging `merged` into one kernel, whose results `readers` read too, would make a cycle:
  // a path that leaves the kernel and returns.
  bool would_cycle(std::span<const KernelId> merged, std::span<const KernelId> readers = {});

  // Merges `gone` into `into`, with the dependences of both. Throws Error if that makes a cycle.
  void merge(KernelId into, KernelId gone);
  // Merges all of `merged` into the first.
  void merge(std::span<const KernelId> merged);

  // For each kernel: whether it depends on k, or k on it.
  Indexed<KernelId, bool> related(KernelId k) const;

  // The kernels that directly read from k, or that k directly reads from, each once.
  std::vector<KernelId> users(KernelId k) const { return distinct(k, kernels_[k].users); }
  std::vector<KernelId> sources(KernelId k) const { return distinct(k, kernels_[k].sources); }

  bool alive(KernelId k) const { return kernels_[k].into == k; }
  std::size_t size() const { return kernels_.size(); }

 private:
  struct Kernel {
    KernelId into;  // itself until it is merged
    std::int64_t place = 0;
    std::vector<KernelId> users, sources;  // may name merged kernels: use of()
    std::int64_t seen = 0;                 // number of the last search that met it
  };

  KernelId add(std::int64_t place);
  std::vector<KernelId> distinct(KernelId k, const std::vector<KernelId>& of) const;
  // Moves kernels so that `from` comes before `to`.
  void restore(KernelId from, KernelId to);
  // Restores the order around `k`, some of whose dependences violate it.
  void reorder_around(KernelId k);
  // Searches along users from the kernels in frontier_, through kernels placed before `end`.
  // Whether it meets a target, that is, a kernel with seen == -search_.
  bool meets_target(std::int64_t end);
  void visit(KernelId k, std::int64_t end);

  Indexed<KernelId, Kernel> kernels_;
  std::int64_t first_ = 0, last_ = 0;  // places
  std::int64_t search_ = 0;
  std::vector<KernelId> frontier_;
};

// The writer and the readers of each buffer.
struct Traffic {
  Traffic(const Kernels& kernels, std::size_t buffers);
  // The dependences of the kernels, in the given order as far as they allow it.
  KernelGraph dependences() const;

  Indexed<BufferId, KernelId> writer;  // none for an input
  Indexed<BufferId, std::vector<KernelId>> readers;
  std::size_t kernels = 0;
};

}  // namespace fluxion::plan
