// Nearest neighbours, and what they tell about two sets of samples.
#pragma once

#include <vector>

#include "models/evaluation/sample_view.h"

namespace fluxion {

// The k samples of `base` nearest to each sample of `x`, nearest first, equal distances in the order of `base`.
struct Neighbours {
  std::int64_t k = 0;
  std::vector<std::int64_t> index;  // [x.count, k]
  std::vector<double> distance;     // Euclidean
};
// Throws ShapeError unless 1 <= k <= base.count and dimensions agree.
Neighbours nearest(const SampleView& x, const SampleView& base, std::int64_t k, int threads = 0);

// Around every sample a ball that reaches its k-th nearest neighbour in its own set (Kynkaanniemi et al. 2019; Naeem et al. 2020):
struct Coverage {
  double precision = 0;  // share of generated samples inside a ball of the data: are they realistic?
  double recall = 0;     // share of the data inside a ball of the generated samples: is everything there?
  double density = 0;    // data balls around a generated sample, divided by k; 1 is expected of the data themselves
  double coverage = 0;   // share of data balls with a generated sample inside
};
// Throws ShapeError unless both sets have more than k samples of one dimension.
Coverage precision_recall(const SampleView& data, const SampleView& generated, std::int64_t k = 3, int threads = 0);

}  // namespace fluxion
