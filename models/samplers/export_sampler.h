// A trained model as a stored sampler (engine/export/stored_sampler.h): what `fluxion export`
// writes and embed/ runs.
#pragma once

#include "engine/export/stored_sampler.h"
#include "models/model_file.h"
#include "models/samplers/sampler_options.h"

namespace fluxion {

// The sampler with these options, guidance included, of a model whose parameters are f32. In f32 it
// draws what Sampler::sample draws, bit for bit on one device. Throws Error as check(options) does;
// for error control (dopri5) and norms that are measured over a batch, which no fixed list of steps
// has; and where a weight does not fit the encoding, which it names.
//
// With free_guidance whoever draws may choose another scale of guidance, for twice the network
// evaluations whatever it is. Throws Error for models that check_guidance refuses.
StoredSampler export_sampler(const Model& model, const SamplerOptions& options,
                             WeightEncoding encoding = WeightEncoding::f32,
                             bool free_guidance = false);

}  // namespace fluxion
