// What logsumexp and log_softmax share.
#pragma once

#include "engine/graph/tensor.h"

namespace fluxion {

// log sum e^shifted over `axes`, kept with size 1. `largest` (bool) says which elements are the
// largest; `shifted` is 0 there. Adds up the sum minus 1, the part of them, and takes log1p: so the
// logarithm keeps its digits where the sum is nearly 1.
Tensor log_sum(const Tensor& shifted, const Tensor& largest, const Dims& axes);

}  // namespace fluxion
