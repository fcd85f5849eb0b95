// The noisiest part of the way in closed form: there the data are hardly told from a Gaussian with
// their mean and covariance, whose flow is known (Wang and Vastola 2023, "Diffusion models generate
// images like painters"). The network begins where SamplerOptions::begin says.
#pragma once

#include <cstdint>
#include <vector>

#include "models/data/data_set.h"

namespace fluxion {

struct HeadStart {
  std::vector<double> mean, covariance;  // [d], [d, d], of samples as vectors
};
// The largest d: a covariance of so many numbers squared is decomposed.
inline constexpr std::int64_t most_head_start_dimensions = 4096;

// The mean and the covariance of the first `count` samples (of a finite set, of as many as it has).
// Throws Error for samples of too many numbers, or ones that are not finite.
HeadStart fitted_head_start(const DataSet& data, std::int64_t count = 10'000);

}  // namespace fluxion
