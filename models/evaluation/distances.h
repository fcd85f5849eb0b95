// All squared Euclidean distances between two sets of samples, in double precision, a few rows at a
// time: memory stays small whatever the sizes.
#pragma once

#include <functional>

#include "models/evaluation/sample_view.h"

namespace fluxion {

// body(row, first, squared): squared[k] = |x_row - y_(first + k)|^2.
using DistanceRow =
    std::function<void(std::int64_t row, std::int64_t first, std::span<const double> squared)>;

// Every row of x against all of y, first = 0. Rows come in any order, from several threads at once.
// Up to eight dimensions distances are sums of squared differences; beyond, |x|^2 + |y|^2 - 2 x.y
// as a matrix product, with the samples centred first, but for samples so near each other that this
// loses digits. So equal samples are 0 apart, and all others are exact to some 1e-10 of their
// distance: the same two need not be equally far apart in two calls, bit for bit.
void for_distances(const SampleView& x, const SampleView& y, int threads, const DistanceRow& body);
// Each pair i < j of one set once: row i with first = i + 1. The last row is empty.
void for_pair_distances(const SampleView& x, int threads, const DistanceRow& body);
// Bytes that either takes beside its samples, of so many in each set.
double distance_bytes(std::int64_t x, std::int64_t y, std::int64_t dim);

}  // namespace fluxion
