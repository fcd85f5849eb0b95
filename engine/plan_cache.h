// Plans with their executables, and the cache of them that a device keeps.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine/compile.h"
#include "engine/plan/plan.h"

namespace fluxion {

// A program with the executable made of it. The backend must outlive it.
class ExecutablePlan {
 public:
  ExecutablePlan(plan::Graph graph, Backend& backend);

  // One buffer per requested output. `inputs` are the buffers of the graph's parameters; donated
  // ones that `inputs` alone owns may come back as outputs. If this throws, no input was written
  // to.
  std::vector<std::shared_ptr<Buffer>> run(const std::vector<std::shared_ptr<Buffer>>& inputs,
                                           std::span<const double> scalars,
                                           const RunOptions& options) const;

  const Program& program() const { return plan_.program; }
  const plan::Graph& graph() const { return graph_; }
  MemoryReport memory_report() const;

 private:
  plan::Graph graph_;
  Plan plan_;
  Backend& backend_;
  std::unique_ptr<Executable> executable_;
};

// Plans by graph: a 128-bit hash finds a candidate, full comparison decides. The least recently
// used plan leaves when the cache is full.
class PlanCache {
 public:
  explicit PlanCache(std::size_t capacity) : capacity_(capacity) {}
  std::shared_ptr<const ExecutablePlan> find_or_make(plan::Graph graph, Backend& backend);
  std::size_t size() const;

 private:
  using Entry = std::pair<std::uint64_t, std::shared_ptr<const ExecutablePlan>>;
  mutable std::mutex mutex_;
  std::size_t capacity_;
  std::list<Entry> recent_;  // most recent first
  std::unordered_multimap<std::uint64_t, std::list<Entry>::iterator> index_;
};

}  // namespace fluxion
