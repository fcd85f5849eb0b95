// What attention computes between its matrix products: the online softmax over a block of keys,
// with tangents, and the factors of the backward pass. Written once with Highway, compiled for
// every instruction set; attention_kernels() chooses at run time.
//
// Scores have a key per row and a query per vector lane. So maxima and sums along the keys need no
// shuffles, and the products before and after read keys and values in place.
#pragma once

#include <cstdint>

namespace fluxion::cpu_backend {

// A strip of queries, one per column, and its scores against a block of keys. `columns` is a
// multiple of the vector length and the row stride of every matrix.
template <class T>
struct SoftmaxBlock {
  T* scores;    // [keys, columns]; becomes p = exp(scores - largest)
  T* tangents;  // [keys, columns]; becomes p * tangents; null without tangents
  std::int64_t keys, columns;
  // [columns], over the keys so far: the largest score, sum of p, sum of p * tangents. `largest`
  // starts as -inf, the others as 0.
  T *largest, *total, *total_tangent;
  // [features, columns]: sums relative to `largest`, rescaled when it rises.
  T *sum, *sum_tangent;
  std::int64_t features;  // 0 before the first block: there are no sums yet
};

template <class T>
struct AttentionKernels {
  // Adds a block of keys to the state.
  void (*softmax)(const SoftmaxBlock<T>& block);
  // After the last block: sum becomes y = sum / total, total becomes the log-sum-exp, total_tangent
  // its tangent dlse, sum_tangent dy = sum_tangent / total - dlse y. Does not read scores and
  // tangents. A query whose scores are all -inf gets NaN.
  void (*finish)(const SoftmaxBlock<T>& block);
  // Replaces scores by p = exp(scores - lse) and factors by p (factors - delta). Both are
  // [keys, columns]; lse and delta are [columns].
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
