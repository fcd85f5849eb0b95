// A two-sample test by a classifier (Lopez-Paz and Oquab 2017): can samples that it has not seen be
// told from real ones?
#pragma once

#include <cstdint>

#include "models/evaluation/sample_view.h"

namespace fluxion {

struct ClassifierTest {
  std::int64_t most_samples = 2000;  // of each set, from all over it
  int folds = 5;
  std::int64_t features = 96;  // random cosines of the samples
  double ridge = 1;            // penalty of the weights, |w|^2 / 2 times this
  std::uint64_t seed = 0;      // of the features
};

// The share of held-out samples that logistic regression assigns to the right set, with equally
// many of each: 1/2 where nothing tells them apart, 1 where everything does. Each fifth of the
// samples is judged by a model of the other four fifths. The regression sees the coordinates, or 64
// random projections of them where there are more, and cosines of random frequencies for lengths
// from a quarter of the median distance to twice it (Rahimi and Recht 2007), so that it knows
// curves as well as lines. Throws ShapeError for fewer than 2 samples a fold, Error for numbers
// that are not finite or options out of range.
double classifier_test(const SampleView& x, const SampleView& y, const ClassifierTest& options = {},
                       int threads = 0);

}  // namespace fluxion
