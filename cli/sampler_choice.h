// The options that choose a sampler: of `fluxion sample` and `fluxion eval`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "models/data/data_set.h"
#include "models/model_file.h"
#include "models/samplers/sampler_options.h"

namespace fluxion::cli {

struct SamplerChoice {
  std::optional<std::string> sampler;
  std::optional<std::int64_t> steps, corrections;
  std::optional<double> eta, churn, churn_min, churn_max, churn_noise, tolerance, shift, rho,
      sigma_min, sigma_max, signal_to_noise, guidance_low, guidance_high, head_start;
  std::optional<std::string> grid;
  bool batch_error = false, measured_norms = false;
  bool operator==(const SamplerChoice&) const = default;
};

// Adds --steps and --sampler, and the others under the heading "Samplers"; returns them all.
std::vector<Option> add_sampler_options(const Parser& parser, SamplerChoice& choice);
// The model's default sampler as the command line changes it, with --guidance. Throws Error for an
// option that the sampler doesn't have, naming those that do, and as check_guidance and
// check(SamplerOptions) do. free_guidance: calls choose the scale of guidance later.
SamplerOptions chosen_sampler(const SamplerChoice& choice, double guidance, const ModelInfo& info,
                              const std::string& command, bool free_guidance = false);

// Takes the head start that was chosen from this data set, if one was. Throws Error as
// fitted_head_start does, and where the set's samples are others than the model's.
void take_head_start(const SamplerChoice& choice, SamplerOptions& options, const DataSet& data,
                     const Shape& sample_shape);

// "50", or "18.4" of a mean.
std::string evaluations_text(double evaluations);

}  // namespace fluxion::cli
