// Which sampler goes with which objective.
#pragma once

#include <string>

#include "models/samplers/sampler.h"

namespace fluxion {

// The sampler that fits what `objective` (ModelInfo::objective) taught a network, with the number
// of steps it is usually run with: one step for average velocities, fifty Euler steps for
// velocities. Throws Error for "noise_prediction", which none can follow.
SamplerOptions default_sampler(const std::string& objective);

}  // namespace fluxion
