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
  T* tangents;  // [keys, columns]; becomes p * (tangents - slope); null without tangents
  std::int64_t keys, columns;
  // [columns], over the keys so far: the largest score, its tangent `slope`, sum of p, sum of
  // p * (tangents - slope). `largest` starts as -inf, the others as 0. (A constant may be added to
  // the tangents of a row. With this one, the key that takes nearly all weight adds exactly 0.)
  T *largest, *slope, *total, *total_tangent;
  // [features, columns]: sums relative to `largest` and `slope`, adapted when they change.
  T *sum, *sum_tangent;
  std::int64_t features;  // 0 before the first block: there are no sums yet
};

// What the backward knows of each query, [columns]: the largest score, or 0 over nothing; the
// factor of that key, like SoftmaxBlock::slope; 1 / the sum of exp(scores - shift), or 0; and
// delta = sum of p (factors - slope) - the cotangent of the log-sum-exp.
template <class T>
struct BackwardRows {
  T *shift, *slope, *inverse, *delta;
};

template <class T>
struct AttentionKernels {
  // Adds a block of keys to the state.
  void (*softmax)(const SoftmaxBlock<T>& block);
  // After the last block: sum becomes y = sum / total, total becomes the log-sum-exp, total_tangent
  // its tangent dlse, sum_tangent dy = (sum_tangent - total_tangent y) / total. Does not read
  // scores and tangents.
  void (*finish)(const SoftmaxBlock<T>& block);
  // Of all keys that the queries see: finds the rows' values, and replaces scores by
  // exp(scores - shift).
  void (*find_rows)(T* scores, const T* factors, const T* lse_cotangent,
                    const BackwardRows<T>& rows, std::int64_t keys, std::int64_t columns);
  // Replaces scores by exp(scores - shift), where find_rows has not.
  void (*exponentials)(T* scores, const T* shift, std::int64_t keys, std::int64_t columns);
  // Then scores by p = inverse * scores, and factors by p (factors - slope - delta).
  void (*backward)(T* scores, T* factors, const BackwardRows<T>& rows, std::int64_t keys,
                   std::int64_t columns);
  void (*scale)(T* x, T factor,
                std::int64_t count);  // x *= factor; count is a multiple of the vector length
  void (*add)(T* x, const T* other, std::int64_t count);  // x += other; the same
};

// The kernels of the best instruction set that this processor has. T: float, double.
template <class T>
const AttentionKernels<T>& attention_kernels();

}  // namespace fluxion::cpu_backend
