#include "models/samplers/default_sampler.h"

#include "engine/error.h"
#include "models/paths/prediction.h"

namespace fluxion {

SamplerOptions default_sampler(const ModelInfo& info) {
  const bool moves =
      info.prediction == Prediction::velocity || info.prediction == Prediction::average_velocity;
  if (!moves || info.path != Path{})
    throw Error("sampling: the model predicts " + to_string(info.prediction) + " on the path '" +
                to_string(info.path.kind) +
                "'; the samplers need a velocity or an average velocity on 'linear'");
  return {.kind = sampler_kind_from(info.sampling.sampler),
          .steps = info.sampling.steps,
          .path = info.path,
          .prediction = info.prediction};
}

}  // namespace fluxion
