#include "models/older_objectives.h"

#include <algorithm>
#include <array>

#include "engine/error.h"
#include "models/names.h"

namespace fluxion {
namespace {

constexpr std::array<OlderObjective, 5> older_objectives = {
    {{"flow_matching", "flow-matching", Prediction::velocity},
     {"meanflow", "meanflow", Prediction::average_velocity},
     {"meanflow_cfg", "meanflow", Prediction::average_velocity},
     {"split_meanflow", "split-meanflow", Prediction::average_velocity},
     {"noise_prediction", "", Prediction::noise}}};

}  // namespace

const OlderObjective& older_objective_named(const std::string& name) {
  const auto found = std::ranges::find(older_objectives, name, &OlderObjective::name);
  if (found != older_objectives.end()) return *found;
  throw FormatError("objective '" + name + "' is not one of " +
                    quoted_names(older_objectives, &OlderObjective::name));
}

}  // namespace fluxion
