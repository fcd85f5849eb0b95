// The planner: graph in, program out; and what runs it.
//
//   canonicalise -> simplify -> pair -> prepare -> fuse -> lower -> merge contractions and
//   epilogues -> order -> place in memory
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "engine/backend.h"
#include "engine/compile.h"
#include "engine/plan/graph.h"

namespace fluxion {

// Where each requested output comes from: an output of the program, or an input passed through.
struct OutputSource {
  bool from_input = false;
  std::int32_t index = 0;
};

struct Planned {
  Program program;
  std::vector<double> extra_scalars;  // bound after the graph's own
  std::vector<OutputSource> outputs;
};

namespace plan {
// Plans `graph` for a device with these limits. Deterministic.
Planned make_program(const Graph& graph, const KernelLimits& limits);
}  // namespace plan

// A program with the executable made of it. The backend must outlive it.
class Plan {
 public:
  Plan(plan::Graph graph, Backend& backend);

  // One buffer per requested output. `inputs` are the buffers of the graph's parameters; donated
  // ones that `inputs` alone owns may come back as outputs. If this throws, no input was written
  // to.
  std::vector<std::shared_ptr<Buffer>> run(const std::vector<std::shared_ptr<Buffer>>& inputs,
                                           std::span<const double> scalars,
                                           const RunOptions& options) const;

  const Program& program() const { return planned_.program; }
  const plan::Graph& graph() const { return graph_; }
  MemoryReport memory_report() const;

 private:
  plan::Graph graph_;
  Planned planned_;
  Backend& backend_;
  std::unique_ptr<Executable> executable_;
};

// Plans by graph: a 128-bit hash finds a candidate, full comparison decides. The least recently
// used plan leaves when the cache is full.
class PlanCache {
 public:
  explicit PlanCache(std::size_t capacity) : capacity_(capacity) {}
  std::shared_ptr<const Plan> find_or_make(plan::Graph graph, Backend& backend);
  std::size_t size() const;

 private:
  using Entry = std::pair<std::uint64_t, std::shared_ptr<const Plan>>;
  mutable std::mutex mutex_;
  std::size_t capacity_;
  std::list<Entry> recent_;  // most recent first
  std::unordered_multimap<std::uint64_t, std::list<Entry>::iterator> index_;
};

}  // namespace fluxion
