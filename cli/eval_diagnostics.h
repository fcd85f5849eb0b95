// `fluxion eval --metrics conservativity,dimension`: what the Jacobian of a model says.
#pragma once

#include <string>
#include <vector>

#include "cli/eval_samples.h"

namespace fluxion::cli {

// Throws Error where a metric of models (is_of_model) can't be had: guidance, a model without a
// velocity or a denoiser, as far as it needs one, or whose classes were never left open, a build
// without derivatives.
void check_model_metric(const std::string& metric, const EvalArguments& options,
                        const ModelInfo& info);
// At samples of the reference under noise of several levels, each a row.
std::vector<Measurement> model_diagnostic(const std::string& metric, const EvalArguments& options,
                                          const Model& model, const EvaluationData& data,
                                          const Device& device, ProgressLine& line);

}  // namespace fluxion::cli
