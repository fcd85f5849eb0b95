// `fluxion eval --metrics likelihood`: what a model thinks of real samples.
#pragma once

#include <vector>

#include "cli/eval_samples.h"

namespace fluxion::cli {

// Throws Error where the likelihood can't be had: guidance, a model whose classes were never left
// open, a build without derivatives.
void check_likelihood(const EvalArguments& options, const ModelInfo& info);
// The mean over samples of the reference, in nats and in bits per dimension; of pictures after
// dequantisation to 256 levels.
std::vector<Measurement> model_likelihood(const EvalArguments& options, const Model& model,
                                          const EvaluationData& data, const Device& device,
                                          ProgressLine& line);

}  // namespace fluxion::cli
