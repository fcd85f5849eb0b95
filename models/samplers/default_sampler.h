// The sampler that a model is drawn with where nobody says how.
#pragma once

#include "models/model_file.h"
#include "models/samplers/sampler.h"

namespace fluxion {

// ModelInfo::sampling. Throws Error for a model that no sampler can follow yet.
SamplerOptions default_sampler(const ModelInfo& info);

}  // namespace fluxion
