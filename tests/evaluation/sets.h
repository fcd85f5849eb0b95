// Sets of samples for tests of the metrics.
#pragma once

#include <vector>

#include "models/data/random.h"
#include "models/evaluation/sample_view.h"

namespace fluxion::testing {

struct SampleSet {
  std::vector<float> values;
  std::int64_t count = 0, dim = 0;
  SampleView view() const { return {values, count, dim}; }
  operator SampleView() const { return view(); }
  float* row(std::int64_t i) { return values.data() + i * dim; }
  const float* row(std::int64_t i) const { return values.data() + i * dim; }
};

// Independent N(mean, deviation^2) coordinates.
inline SampleSet gaussian(std::int64_t count, std::int64_t dim, std::uint64_t seed, float mean = 0,
                          float deviation = 1) {
  SampleSet set{std::vector<float>(static_cast<std::size_t>(count * dim)), count, dim};
  RandomSequence random(seed, 0);
  for (float& value : set.values) value = mean + deviation * random.normal();
  return set;
}

inline double squared_distance(const SampleSet& a, std::int64_t i, const SampleSet& b,
                               std::int64_t j) {
  double total = 0;
  for (std::int64_t k = 0; k < a.dim; ++k)
    total += (double{a.row(i)[k]} - b.row(j)[k]) * (double{a.row(i)[k]} - b.row(j)[k]);
  return total;
}

}  // namespace fluxion::testing
