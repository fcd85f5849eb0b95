// Which sampler goes with which objective.
#pragma once

#include <string>

#include "models/samplers/sampler.h"

namespace fluxion {

// Throws FormatError, listing what is known, unless `objective` (ModelInfo::objective) names one of
// the objectives of this version or "noise_prediction".
void check_objective(const std::string& objective);

// The sampler that fits what `objective` taught a network, with the number of steps it is usually
// run with: one step for average velocities, fifty Euler steps for velocities. Throws FormatError
// for an unknown objective, Error for "noise_prediction", which no sampler can follow.
SamplerOptions default_sampler(const std::string& objective);

}  // namespace fluxion
