// One training run's state and its step: batch in, update out. The loop around it, with its files and its progress, is models/training/run.h.
//
// A run is a pure function of its configuration, device and thread count: batches depend on (seed, step), and every random number inside the step on
// fold_in(random_key(seed), step). Two runs of the same seed give the same bits.
#pragma once

#include <memory>

#include "engine/compile.h"
#include "models/data/data_set.h"
#include "models/model_file.h"
#include "models/objectives/objective.h"
#include "models/optimisers/adamw.h"

namespace fluxion {

struct TrainingConfig {
  NetworkConfig network = {};
  ObjectiveConfig objective = {};
  AdamWOptions optimiser = {};
  double learning_rate = 1e-3;  // reached after warm_up_steps, then constant
  std::int64_t warm_up_steps = 100;
  std::int64_t batch = 64;
  std::uint64_t seed = 0;
};

// What one update says about itself: scalars that stay on the device until they are asked for.
struct StepMetrics {
  Tensor loss;           // the objective, as differentiated
  Tensor error;          // mean squared error per element, unweighted
  Tensor gradient_norm;  // before clipping
};

enum class Weights { raw, average };

class Trainer {
 public:
  // Initialises the network from the seed. Throws Error where network, objective and data do not fit together.
  Trainer(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device);
  ~Trainer();
  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;

  // What a step needs. Traces and plans the step, and runs nothing.
  MemoryReport memory_report() const;
  // The step as it will run.
  const Program& program() const;

  // One update on the next batch.
  StepMetrics step();

  std::int64_t steps_done() const;
  const TrainingConfig& config() const;
  const DataSet& data() const;
  const Device& device() const;
  // How often the step was traced: 1, or something is wrong.
  std::size_t traces() const;

  // The network as it is now. The parameters share the trainer's buffers: write or copy them before the next step, which takes them over.
  Model model(Weights weights) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fluxion
