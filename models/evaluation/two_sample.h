// Distances between two sets of samples, x [n, d] and y [m, d], in double precision. Results do not
// depend on the number of threads.
//
// All throw ShapeError for sets that are too small or differ in dimension, Error for numbers that
// are not finite. threads 0: one per usable core.
#pragma once

#include <cstdint>

#include "models/evaluation/sample_view.h"

namespace fluxion {

// 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Szekely and Rizzo 2004), Euclidean; 0 only for equal
// distributions. Unbiased: means over i != j, which needs two samples of each and may come out
// negative; otherwise over all pairs, the zero ones included, which never does.
double energy_distance(const SampleView& x, const SampleView& y, bool unbiased = true,
                       int threads = 0);

// Squared maximum mean discrepancy (Gretton et al. 2012), unbiased: mean of k over pairs i != j
// within x, plus within y, minus twice the mean over pairs across. k(a, b) is the mean of exp(-|a -
// b|^2 / (2 h^2)) over the bandwidths h = bandwidth 2^-octaves, .., bandwidth 2^octaves.
struct RbfKernel {
  double bandwidth = 1;  // above 0
  int octaves = 0;       // 0 to 10; 2 for a mixture that sees coarse and fine differences
};
double mmd2_rbf(const SampleView& x, const SampleView& y, const RbfKernel& kernel, int threads = 0);

// The median of |x_i - x_j| over pairs of samples that differ, of the first median_samples: the
// usual bandwidth. Throws Error if there are none.
inline constexpr std::int64_t median_samples = 1000;
double median_distance(const SampleView& x, int threads = 0);

// Sliced 2-Wasserstein distance (Rabin et al. 2012): the root of the mean over directions of the
// squared W2 between the projections, which is exact (the integral of the squared difference of the
// two quantile functions; n and m may differ). Directions are uniform on the sphere and depend on
// the seed alone.
struct Slices {
  std::int64_t directions = 512;
  std::uint64_t seed = 0;
};
double sliced_wasserstein2(const SampleView& x, const SampleView& y, const Slices& slices = {},
                           int threads = 0);
// The same along given directions [count, d].
double sliced_wasserstein2(const SampleView& x, const SampleView& y, const SampleView& directions,
                           int threads = 0);

// Exact Wasserstein distances of two sets of equal size: the mean distance, or the root of the mean
// squared distance, under the assignment where it is least (shortest augmenting paths, Jonker and
// Volgenant 1987). Time n^3, memory n^2: both throw ShapeError above 4,000 samples.
double wasserstein1(const SampleView& x, const SampleView& y, int threads = 0);
double wasserstein2(const SampleView& x, const SampleView& y, int threads = 0);

}  // namespace fluxion
