// One training run's state and its step: batch in, update out. The loop around it, with its files
// and its progress, is models/training/run.h.
//
// A run is a pure function of its configuration, device and thread count: batches depend on (seed,
// step), and every random number inside the step on fold_in(random_key(seed), step). Two runs of
// the same seed give the same bits, and so does a run that stops and goes on from its state
// (models/training/checkpoint.h).
#pragma once

#include <memory>

#include "engine/compile.h"
#include "models/data/data_set.h"
#include "models/model_file.h"
#include "models/training/config.h"

namespace fluxion {

// What one update says about itself: scalars that stay on the device until they are asked for.
struct StepMetrics {
  Tensor loss;           // the objective, as differentiated
  Tensor error;          // mean squared error per element, unweighted
  Tensor gradient_norm;  // before clipping; where the loss is scaled and this is not finite, the
                         // update was skipped
  Tensor loss_scale;     // what the loss was multiplied by; empty where it is not scaled
};

// Weights that a new run begins with where its network has them, by name and shape. Without any it
// begins with those of a frozen teacher, or else with fresh ones.
struct Start {
  Parameters parameters = {};
};
// Gives the configuration what a run that begins with this model has to know of it - of networks
// of one width also what no shape shows: heads, the scale of times, .. - and says in a line which
// parameters are taken and which do not fit. `where` names the model. Throws Error where none fits.
std::string take_start(TrainingConfig& config, const Model& model, const std::string& where);

enum class Weights { raw, average };

class Trainer {
 public:
  // Initialises the network from the seed. Throws Error where network, method and data do not fit
  // together; IoError and FormatError for a teacher that can't be read.
  Trainer(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device);
  // The same with other weights to begin with.
  Trainer(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device,
          const Start& start);
  // Goes on from `state` of an earlier trainer of this configuration, whose buffers it takes over.
  // Throws Error where the state is not one of this configuration.
  Trainer(TrainingConfig config, std::shared_ptr<const DataSet> data, const Device& device,
          TrainState state);
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
  const std::vector<std::string>& class_marks() const;  // DataSet::class_marks at the start
  const Device& device() const;
  // How often the step was traced: 1, or something is wrong.
  std::size_t traces() const;

  // All that training changes, and the network as it is now, with the average of
  // optimiser.ema_decays[average]. The tensors share the trainer's buffers: write or copy them
  // before the next step, which takes them over.
  const TrainState& state() const;
  Model model(Weights weights, std::size_t average = 0) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The parameters that training changes, names and shapes: the network's own, and after "learned."
// those of its method.
std::map<std::string, Shape> trained_shapes(const TrainingConfig& config);
// Those of the network alone, as the trees of a method's state have them.
std::map<std::string, Shape> network_shapes(const TrainingConfig& config);

// What a step of this configuration would need, without parameters or data: traces and plans, and
// allocates nothing. paired: the data have noise of their own (DataSet::has_noise).
MemoryReport step_memory(const TrainingConfig& config, const Device& device, bool paired = false);

}  // namespace fluxion
