#include "models/samplers/default_sampler.h"

#include "engine/error.h"
#include "models/paths/prediction.h"

namespace fluxion {

SamplerOptions default_sampler(const ModelInfo& info) {
  if (info.prediction == Prediction::noise && info.path == Path{})
    throw Error(
        "sampling: the model predicts noise, as diffusion models do, and its file does not say on "
        "which path");
  SamplerOptions options{.kind = sampler_kind_from(info.sampling.sampler),
                         .steps = info.sampling.steps,
                         .path = info.path,
                         .prediction = info.prediction,
                         .wrapping = info.wrapping,
                         .independent_noise = info.coupling.empty(),
                         .on_path = info.coupling != "flow",
                         .source = info.source,
                         .best_classes = trained_classes(info)};
  // Every step but the last would add noise, which goes with no data of the training.
  if (!options.independent_noise && options.kind == SamplerKind::consistency) options.steps = 1;
  if (info.path.kind == PathKind::edm) {
    options.sigma_min = info.path.sigma_min;
    options.sigma_max = info.path.sigma_max;
  }
  return options;
}

}  // namespace fluxion
