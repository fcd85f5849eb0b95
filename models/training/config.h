// Everything that decides what a training run computes, as one value.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "models/methods/method.h"
#include "models/networks/network.h"
#include "models/objectives/coupling.h"
#include "models/optimisers/loss_scale.h"
#include "models/optimisers/optimiser.h"
#include "models/optimisers/schedule.h"

namespace fluxion {

struct TrainingConfig {
  NetworkConfig network = {};
  MethodConfig method = {};
  // Updates of the whole run, where the method has a schedule (Method::has_schedule), which goes
  // over them; else 0.
  std::int64_t total_steps = 0;
  OptimiserOptions optimiser = {};
  Schedule schedule = {};  // of the learning rate
  std::int64_t batch = 64;
  Coupling coupling = {};  // of the noise that each batch gets
  std::uint64_t seed = 0;
  bool recompute = false;  // gradients compute each block of the network again (with_checkpoints):
                           // less memory, some more time
  double dropout = 0;      // of networks that have a place for it (with_dropout); all calls
                           // of a step leave out the same
  Precision precision = {};          // of the network's products with weights
  LossScaleOptions loss_scale = {};  // read where the precision needs one
  bool operator==(const TrainingConfig&) const = default;
};

// Throws Error, saying what would be right, for a configuration that can't be trained whatever the
// data.
void check(const TrainingConfig& config);
// What the method is asked to train.
MethodUse use_of(const TrainingConfig& config);
// The learning rate of update number `step`: that of the schedule, times the method's share.
double learning_rate_at(const TrainingConfig& config, std::int64_t step);
// Throws Error unless the method learns from pairs of sample and noise that are given.
void check_takes_pairs(const Method& method);

// {"network": .., "method": .., "optimiser": .., "schedule": .., "batch": .., "seed": ..,
// "recompute": .., "precision": ..}, and "total_steps", "coupling", "dropout" and "loss_scale"
// where they are read or not the default; numbers come back bit for bit. training_config_from_json
// also reads files that have an "objective" instead of a method; it throws FormatError for a
// missing or mistyped member, an invalid configuration, or a method that the table lacks.
nlohmann::json training_config_to_json(const TrainingConfig& config);
TrainingConfig training_config_from_json(const nlohmann::json& json,
                                         const MethodTable& methods = built_in_methods());

}  // namespace fluxion
