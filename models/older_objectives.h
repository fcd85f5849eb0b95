// What files of version 1 name instead of what their network predicts.
#pragma once

#include <string>

#include "models/paths/prediction.h"

namespace fluxion {

struct OlderObjective {
  const char* name;
  const char* method;  // as it is called now; "": none here trains it
  Prediction prediction;
};
// Throws FormatError, listing the names, for any other.
const OlderObjective& older_objective_named(const std::string& name);

}  // namespace fluxion
