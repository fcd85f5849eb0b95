// Nearest neighbours, and what they tell about two sets of samples.
#pragma once

#include <utility>
#include <vector>

#include "models/evaluation/sample_view.h"

namespace fluxion {

// The k samples of `base` nearest to each sample of `x`, nearest first, equal distances in the
// order of `base`.
struct Neighbours {
  std::int64_t k = 0;
  std::vector<std::int64_t> index;  // [x.count, k]
  std::vector<double> distance;     // Euclidean
};
// Searches a base that comes in parts, so that it need not lie in memory at once.
class NearestSearch {
 public:
  // x must outlive the search. Throws ShapeError unless k >= 1 and there are samples.
  NearestSearch(const SampleView& x, std::int64_t k, int threads = 0);
  void add(const SampleView& part);
  // Indices count through the parts in the order they came. Throws ShapeError if they held fewer
  // than k samples.
  Neighbours result() const;

 private:
  SampleView x_;
  std::int64_t k_, searched_ = 0;
  int threads_;
  std::vector<std::vector<std::pair<double, std::int64_t>>>
      best_;  // of each sample: squared distance and index, in increasing order
};

// Around every sample a ball that reaches its k-th nearest neighbour in its own set (Kynkaanniemi
// et al. 2019; Naeem et al. 2020):
struct Coverage {
  double precision =
      0;  // share of generated samples inside a ball of the data: are they realistic?
  double recall =
      0;  // share of the data inside a ball of the generated samples: is everything there?
  double density = 0;   // data balls around a generated sample, divided by k; 1 is expected of the
                        // data themselves
  double coverage = 0;  // share of data balls with a generated sample inside
};
// Throws ShapeError unless both sets have more than k samples of one dimension.
Coverage precision_recall(const SampleView& data, const SampleView& generated, std::int64_t k = 3,
                          int threads = 0);

}  // namespace fluxion
