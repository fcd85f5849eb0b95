#include "models/samplers/default_sampler.h"

namespace fluxion {

SamplerOptions default_sampler(const std::string& objective) {
  if (objective == "flow_matching") return {.kind = SamplerKind::ode_euler, .steps = 50};
  return {.kind = SamplerKind::meanflow, .steps = 1};
}

}  // namespace fluxion
