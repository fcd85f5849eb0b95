// Distances between a prediction and a target.
#pragma once

#include "engine/graph/ops.h"

namespace fluxion {

// Sum of x^2 over all axes but the first: [batch, ..] -> [batch].
Tensor squared_norm(const Tensor& x, Location where = Location::current());

// sqrt(|x - y|^2 + c^2) - c per sample, one root over all axes but the first: [batch, ..] ->
// [batch]. With c = 0, |x - y|; where x = y its derivatives of every order are then 0.
Tensor pseudo_huber(const Tensor& x, const Tensor& y, double c,
                    Location where = Location::current());

// Elementwise, d = x - y: d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2).
Tensor huber(const Tensor& x, const Tensor& y, double delta, Location where = Location::current());

}  // namespace fluxion
