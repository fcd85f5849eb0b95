// Everything that decides what a training run computes, as one value.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "models/networks/network.h"
#include "models/objectives/objective.h"
#include "models/optimisers/adamw.h"
#include "models/optimisers/schedule.h"

namespace fluxion {

struct TrainingConfig {
  NetworkConfig network = {};
  ObjectiveConfig objective = {};
  AdamWOptions optimiser = {};
  Schedule schedule = {};  // of the learning rate
  std::int64_t batch = 64;
  std::uint64_t seed = 0;
  bool recompute = false;  // gradients compute each block of the network again (with_checkpoints):
                           // less memory, some more time
  bool operator==(const TrainingConfig&) const = default;
};

// Throws Error, saying what would be right, for a configuration that can't be trained whatever the
// data.
void check(const TrainingConfig& config);

// {"network": .., "objective": .., "optimiser": .., "schedule": .., "batch": .., "seed": ..,
// "recompute": ..}; numbers come back bit for bit. training_config_from_json throws FormatError for
// a missing or mistyped member or an invalid configuration.
nlohmann::json training_config_to_json(const TrainingConfig& config);
TrainingConfig training_config_from_json(const nlohmann::json& json);

}  // namespace fluxion
