// An objective as a value: what a training run, a command line and a model file name.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "models/objectives/flow.h"

namespace fluxion {

enum class ObjectiveKind { flow_matching, meanflow, meanflow_cfg, split_meanflow };
std::string to_string(ObjectiveKind kind);
ObjectiveKind objective_kind_from(
    const std::string& name);  // throws FormatError for an unknown name

struct ObjectiveConfig {
  ObjectiveKind kind = ObjectiveKind::meanflow;
  double c = 1e-3, p = 1;         // MeanFlow's adaptive weight
  double omega = 1, kappa = 0.5;  // meanflow_cfg's guidance
  double time_mean = -0.4, time_std = 1;
  double equal_share = 0.75;  // share of rows with r = t
  bool subset_jvp =
      true;  // MeanFlow: a fixed share of rows has r = t, and the JVP runs over the others only
  bool own_direction = false;  // MeanFlow: the JVP goes along the network's own velocity
  double label_dropout = 0.1;  // where the network has classes
  bool operator==(const ObjectiveConfig&) const = default;
};

// A training loss and what is worth logging beside it.
struct ObjectiveValue {
  Tensor loss;   // to differentiate
  Tensor error;  // mean squared error per element against the regression target, unweighted
  static auto members(auto& self) { return std::tie(self.loss, self.error); }
};

// The loss of a batch x [batch, ..] with labels i32 [batch] (ignored, and may be empty, without
// classes); all randomness from `key` u32[2].
ObjectiveValue objective_value(const ObjectiveConfig& objective, const NetworkConfig& network,
                               const Parameters& parameters, const Tensor& x, const Tensor& labels,
                               const Tensor& key);

// Throws Error for shares outside [0, 1] and for numbers that f32 doesn't hold.
void check(const ObjectiveConfig& objective);

nlohmann::json objective_to_json(const ObjectiveConfig& objective);
ObjectiveConfig objective_from_json(const nlohmann::json& json);  // throws FormatError

}  // namespace fluxion
