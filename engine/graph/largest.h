// What softmax, logsumexp, maxima and their derivatives share: formulas that treat the largest
// elements, of which several may tie, apart from the others.
#pragma once

#include "engine/graph/tensor.h"

namespace fluxion {

// log sum e^shifted over `axes`, kept with size 1. `largest` (bool) says which elements are the
// largest; `shifted` is 0 there. Adds up the sum minus 1, the part of them, and takes log1p: so the
// logarithm keeps its digits where the sum is nearly 1.
Tensor log_sum(const Tensor& shifted, const Tensor& largest, const Dims& axes);

// The mean of x over those elements along `axes`, kept with size 1, for which `chosen`, of x's
// dtype, is 1 and not 0. The others don't count, infinite and NaN ones included (strong_mul).
Tensor mean_over(const Tensor& x, const Tensor& chosen, const Dims& axes);

}  // namespace fluxion
