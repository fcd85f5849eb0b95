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

// A program and what a backend made of it. Plans of different graphs share one if their programs
// are equal.
struct CompiledProgram {
  Program program;
  std::unique_ptr<Executable> executable;
  Storage storage;  // of the backend
};

class ExecutablePlan;

// One call of a plan: bound, then allocated, then run. What can fail is over before run().
class BoundCall {
 public:
  // The buffers of the graph's inputs. Before allocate() they may be replaced by equal ones.
  std::vector<std::shared_ptr<Buffer>>& inputs() { return inputs_; }
  // Memory for the outputs; one takes over a donated input if nothing else owns that. Throws
  // OutOfMemory.
  void allocate(Backend& backend);
  // One buffer for each requested output of the graph, once allocated; some may be inputs.
  const std::vector<std::shared_ptr<Buffer>>& results() const { return results_; }
  // Every exception that leaves it is an Error that states its aftermath; only after "nothing
  // written" do the inputs hold what they held.
  void run(const RunOptions& options);

 private:
  friend class ExecutablePlan;
  std::shared_ptr<const ExecutablePlan> plan_;
  std::vector<std::shared_ptr<Buffer>> inputs_, outputs_, results_;
  std::vector<Buffer*> input_pointers_, output_pointers_;
  std::vector<double> scalars_;
  bool overwrites_ = false;  // whether an output takes over an input
};

// What answers a graph: the compiled program, and where in it each requested output is. The backend
// must outlive it.
class ExecutablePlan : public std::enable_shared_from_this<ExecutablePlan> {
 public:
  ExecutablePlan(plan::Graph graph, Plan plan, std::shared_ptr<const CompiledProgram> compiled);

  BoundCall bind(std::vector<std::shared_ptr<Buffer>> inputs,
                 std::span<const double> scalars) const;

  const Program& program() const { return compiled_->program; }
  const plan::Graph& graph() const { return graph_; }
  MemoryReport memory_report() const;

 private:
  friend class BoundCall;
  plan::Graph graph_;
  std::vector<double> extra_scalars_;
  std::vector<OutputSource> outputs_;
  std::shared_ptr<const CompiledProgram> compiled_;
};

// Plans by graph, compiled programs by content. A hash finds a candidate, full comparison decides.
// The least recently used plan leaves when the cache is full; a compiled program lives as long as a
// plan that uses it.
class PlanCache {
 public:
  explicit PlanCache(std::size_t capacity) : capacity_(capacity) {}
  std::shared_ptr<const ExecutablePlan> find_or_make(plan::Graph graph, Backend& backend);
  std::size_t size() const;

 private:
  using Entry = std::pair<std::uint64_t, std::shared_ptr<const ExecutablePlan>>;

  std::shared_ptr<const CompiledProgram> find_or_compile(Program program, Backend& backend);
  // These want the mutex held.
  std::shared_ptr<const ExecutablePlan> find_plan(std::uint64_t key, const plan::Graph& graph);
  std::shared_ptr<const CompiledProgram> find_program(std::uint64_t key, const Program& program);
  void forget_oldest();

  mutable std::mutex mutex_;
  std::size_t capacity_;
  std::list<Entry> recent_;  // most recent first
  std::unordered_multimap<std::uint64_t, std::list<Entry>::iterator> index_;
  std::unordered_multimap<std::uint64_t, std::weak_ptr<const CompiledProgram>> programs_;
};

}  // namespace fluxion
