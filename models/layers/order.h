// Sorting and products along axes. Sorting is stable - equal values, -0 and 0 among them, keep
// their order - and puts NaN last in either direction. Derivatives flow through the values.
#pragma once

#include "engine/graph/ops.h"

namespace fluxion {

// i32: out[k] is the position of the k-th value along `axis`. f32, f64, i32 or u32.
Tensor argsort(const Tensor& x, std::int64_t axis, bool descending = false,
               Location where = Location::current());
Tensor sort(const Tensor& x, std::int64_t axis, bool descending = false,
            Location where = Location::current());

// The k largest values along `axis` in decreasing order, and their i32 positions.
struct TopK {
  Tensor values, indices;
};
TopK topk(const Tensor& x, std::int64_t k, std::int64_t axis, Location where = Location::current());

// The product over `axes`, by halves: exact derivatives of every order also where factors are zero.
// Over nothing: 1. No axes listed means all.
Tensor prod(const Tensor& x, const Dims& axes = {}, bool keepdims = false,
            Location where = Location::current());

// out[i] = x[0] .. x[i] along `axis`, by doubling: log2(size) passes, exact derivatives of every
// order also where factors are zero.
Tensor cumprod(const Tensor& x, std::int64_t axis, Location where = Location::current());

}  // namespace fluxion
