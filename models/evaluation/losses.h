// The distances of two_sample.h as graphs: differentiable, for sets small enough that [n, m, d]
// numbers fit into memory - a loss, or an exact check. x [n, d], y [m, d] -> scalar. All throw
// ShapeError for other shapes.
#pragma once

#include "engine/graph/ops.h"

namespace fluxion {

// 2 E|X - Y| - E|X - X'| - E|Y - Y'|; unbiased: the last two over i != j. The distance of a sample
// to itself has derivative 0.
Tensor energy_loss(const Tensor& x, const Tensor& y, bool unbiased = false,
                   Location where = Location::current());

// Unbiased squared maximum mean discrepancy with the kernel exp(-|a - b|^2 / (2 bandwidth^2)).
Tensor mmd2_rbf_loss(const Tensor& x, const Tensor& y, double bandwidth,
                     Location where = Location::current());

// Mean over directions [k, d] of the squared W2 between the projections of x and y, n = m.
Tensor sliced_wasserstein2_loss(const Tensor& x, const Tensor& y, const Tensor& directions,
                                Location where = Location::current());

}  // namespace fluxion
