// The part of attention between its matrix products: the online softmax over a block of keys, with
// tangents, and the factors of the backward pass. Written once with Highway and compiled for every
// instruction set; attention_kernels() chooses at run time.
//
// Scores lie with the keys in rows and the queries side by side in the lanes of a vector: maxima
// and sums along the keys need no shuffles, and the products before and after read keys and values
// as they lie in memory.
#pragma once

#include <cstdint>

namespace fluxion::cpu_backend {

// A strip of queries, one a column, and its scores against a block of keys. `columns` is a multiple
// of the vector length; every matrix has rows that lie `columns` apart.
template <class T>
struct SoftmaxBlock {
  T* scores;    // [keys, columns]; becomes p = exp(scores - largest)
  T* tangents;  // [keys, columns]; becomes p * tangents; null without tangents
  std::int64_t keys, columns;
  // [columns]: over the keys so far, the largest score, sum of p, sum of p * tangents. Largest
  // starts as -inf, the others as 0.
  T *largest, *total, *total_tangent;
  // [features, columns]: sums that are relative to `largest`, rescaled when it rises.
  T *sum, *sum_tangent;
  std::int64_t features;  // 0 before the first block: there are no sums yet
};

template <class T>
struct AttentionKernels {
  // Takes a block of keys into the state.
  void (*softmax)(const SoftmaxBlock<T>& block);
  // After the last block: sum becomes y = sum / total and total the log-sum-exp; total_tangent
  // becomes the tangent of that, dlse, and sum_tangent dy = sum_tangent / total - dlse y. Scores
  // and tangents are not used. A query whose every score is -inf gets NaN.
  void (*finish)(const SoftmaxBlock<T>& block);
  // p = exp(scores - lse) in the place of scores and p (factors - delta) in the place of factors;
  // [keys, columns], lse and delta [columns].
  void (*backward)(T* scores, T* factors, const T* lse, const T* delta, std::int64_t keys,
                   std::int64_t columns);
  void (*scale)(T* x, T factor,
                std::int64_t count);  // x *= factor; count is a multiple of the vector length
  void (*add)(T* x, const T* other, std::int64_t count);  // x += other; the same
};

// The kernels of the best instruction set that this processor has. T: float, double.
template <class T>
const AttentionKernels<T>& attention_kernels();

}  // namespace fluxion::cpu_backend
