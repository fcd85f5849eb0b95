#include "models/samplers/default_sampler.h"

#include "engine/error.h"

namespace fluxion {

SamplerOptions default_sampler(const std::string& objective) {
  if (objective == "noise_prediction")
    throw Error(
        "sampling: the model predicts noise, as diffusion models do; the samplers need a velocity "
        "or an average velocity");
  if (objective == "flow_matching") return {.kind = SamplerKind::ode_euler, .steps = 50};
  return {.kind = SamplerKind::meanflow, .steps = 1};
}

}  // namespace fluxion
