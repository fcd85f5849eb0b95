// Frechet distance between Gaussians fitted to two sets of samples (Dowson and Landau 1982): of
// features it is what FID is of Inception's.
#pragma once

#include <vector>

#include "models/evaluation/sample_view.h"

namespace fluxion {

struct Moments {
  std::vector<double> mean;        // [dim]
  std::vector<double> covariance;  // [dim, dim], symmetric
};

// Mean and unbiased covariance. Throws ShapeError for fewer than two samples, Error for numbers
// that are not finite.
Moments moments(const SampleView& samples);

// |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2): the *squared* distance, as FID is reported.
// Covariances may be singular; eigenvalues that rounding has made negative count as 0. Throws
// ShapeError where sizes do not fit.
double frechet_distance(const Moments& a, const Moments& b);

}  // namespace fluxion
