// `fluxion eval --metrics likelihood,elbo`: what a model thinks of real samples.
#pragma once

#include <vector>

#include "cli/eval_samples.h"

namespace fluxion::cli {

// The mean over samples of the reference, in nats and in bits per dimension; of pictures after
// dequantisation to 256 levels.
std::vector<Measurement> model_likelihood(const std::string& metric, const EvalArguments& options,
                                          const Model& model, const EvaluationData& data,
                                          const Device& device, ProgressLine& line);

}  // namespace fluxion::cli
