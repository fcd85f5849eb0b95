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

// A program and its executable. Plans of different graphs share one if their programs are equal.
struct CompiledProgram {
  Program program;
  std::unique_ptr<Executable> executable;
  Storage storage;  // of the backend
};

class ExecutablePlan;

// The values of evaluated tensors. Throws Error if one has none.
std::vector<std::shared_ptr<Buffer>> buffers_of(const std::vector<Tensor>& tensors);

// One call of a plan: bind, allocate(), run(). Everything expected to fail, such as allocation,
// comes before run().
class BoundCall {
 public:
  // The buffers of the graph's inputs. Before allocate() they may be replaced by equivalent ones.
  std::vector<std::shared_ptr<Buffer>>& inputs() { return inputs_; }
  // Allocates the outputs. An output takes over its donated input if nothing else owns that buffer.
  // Throws OutOfMemory.
  void allocate(Backend& backend);
  // After allocate(): a buffer for each requested output of the graph; some may be inputs.
  const std::vector<std::shared_ptr<Buffer>>& results() const { return results_; }
  // Every exception that leaves it is an Error that states its aftermath. Only after "nothing
  // written" are the inputs unchanged.
  void run(const RunOptions& options);

 private:
  friend class ExecutablePlan;
  std::shared_ptr<const ExecutablePlan> plan_;
  std::vector<std::shared_ptr<Buffer>> inputs_, outputs_, results_;
  std::vector<Buffer*> input_pointers_, output_pointers_;
  std::vector<double> scalars_;
  bool overwrites_ = false;  // whether an output takes over an input
};

// A planned graph: its compiled program, and where each requested output comes from. The backend
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

// Finds plans by graph and compiled programs by content: a hash finds candidates, a full comparison
// decides. When the cache is full, it drops the least recently used plan. A compiled program lives
// as long as some plan uses it.
class PlanCache {
 public:
  explicit PlanCache(std::size_t capacity) : capacity_(capacity) {}
  std::shared_ptr<const ExecutablePlan> find_or_make(plan::Graph graph, Backend& backend);
  // Drops the plan that was found or made last, as after a trial.
  void forget_latest();
  std::size_t size() const;

 private:
  using Entry = std::pair<std::uint64_t, std::shared_ptr<const ExecutablePlan>>;

  std::shared_ptr<const CompiledProgram> find_or_compile(Program program, Backend& backend);
  // Call these with the mutex held.
  std::shared_ptr<const ExecutablePlan> find_plan(std::uint64_t key, const plan::Graph& graph);
  std::shared_ptr<const CompiledProgram> find_program(std::uint64_t key, const Program& program);
  void forget(std::list<Entry>::iterator entry);

  mutable std::mutex mutex_;
  std::size_t capacity_;
  std::list<Entry> recent_;  // most recent first
  std::unordered_multimap<std::uint64_t, std::list<Entry>::iterator> index_;
  std::unordered_multimap<std::uint64_t, std::weak_ptr<const CompiledProgram>> programs_;
};

}  // namespace fluxion
