#include "backends/cpu/attention/attention_kernel.h"

#include <limits>

#include "backends/cpu/gemm/gemm_kernel.h"
#include "backends/cpu/tape/tape_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/attention/attention_kernel.cpp"
#include <hwy/foreach_target.h>  // must precede highway.h
#include <hwy/highway.h>

#include "backends/cpu/tape/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The vectors of the matrix products.
template <class T>
using Vectors = hn::CappedTag<T, gemm_max_lanes<T>>;

// e^x for x <= 88; 0 for x below -86. One unit in the last place near 0, a few where e^x is tiny:
// there the rounding of x, a difference of scores, costs more.
template <class D, class V, Float32<D> = nullptr>
HWY_INLINE V weight(D d, V x) {
  const hn::RebindToSigned<D> di;
  // x = n ln 2 + r. Adding 3 * 2^22 rounds to an integer, which the lowest bits of the sum then
  // hold.
  const V magic = hn::Set(d, 12582912.0f);
  const V shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), magic);
  const V r = hn::NegMulAdd(hn::Sub(shifted, magic), hn::Set(d, 0.693147181f), x);
  // e^r, |r| <= ln 2 / 2, by Remez exchange; the relative error before rounding is below 4e-9.
  const V y = polynomial(d, r, 1.0f, 1.0f, 0.4999999344f, 0.1666652048f, 0.04166838987f,
                         0.008368735631f, 0.001381455916f);
  const V power =
      hn::BitCast(d, hn::Add(hn::ShiftLeft<23>(hn::BitCast(di, shifted)), hn::Set(di, 127 << 23)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -86.0f)), hn::Mul(y, power));
}
template <class D, class V, Float64<D> = nullptr>
HWY_INLINE V weight(D d, V x) {
  return exp(d, x);
}

// The largest of a column and `before`.
template <class D, class V, class T>
HWY_INLINE V LargestOf(D d, V before, const T* scores, std::int64_t keys, std::int64_t pitch) {
  V largest = before, largest_1 = before, largest_2 = before, largest_3 = before;
  std::int64_t j = 0;
  for (; j + 4 <= keys; j += 4) {
    const T* row = scores + j * pitch;
    largest = hn::Max(largest, hn::LoadU(d, row));
    largest_1 = hn::Max(largest_1, hn::LoadU(d, row + pitch));
    largest_2 = hn::Max(largest_2, hn::LoadU(d, row + 2 * pitch));
    largest_3 = hn::Max(largest_3, hn::LoadU(d, row + 3 * pitch));
  }
  for (; j < keys; ++j) largest = hn::Max(largest, hn::LoadU(d, scores + j * pitch));
  return hn::Max(hn::Max(largest, largest_1), hn::Max(largest_2, largest_3));
}

// The value of the key with the largest score (one of those that tie); `before` where there is
// none.
template <class D, class V, class T>
HWY_INLINE V SlopeOf(D d, V largest, V before, const T* scores, const T* values, std::int64_t keys,
                     std::int64_t pitch) {
  V slope = before;
  for (std::int64_t j = 0; j < keys; ++j)
    slope = hn::IfThenElse(hn::Eq(hn::LoadU(d, scores + j * pitch), largest),
                           hn::LoadU(d, values + j * pitch), slope);
  return slope;
}

template <class T>
void Softmax(const SoftmaxBlock<T>& block) {
  const Vectors<T> d;
  using V = hn::Vec<Vectors<T>>;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d)), keys = block.keys,
                     pitch = block.columns;
  const V lowest = hn::Set(d, -std::numeric_limits<T>::infinity());
  for (std::int64_t column = 0; column < block.columns; column += lanes) {
    T* scores = block.scores + column;
    T* tangents = block.tangents ? block.tangents + column : nullptr;
    const V before = hn::LoadU(d, block.largest + column);
    const V largest = LargestOf(d, before, scores, keys, pitch);
    // Nothing to subtract where every key so far is masked.
    const V shift = hn::IfThenZeroElse(hn::Eq(largest, lowest), largest);
    V total = hn::Zero(d), total_1 = hn::Zero(d), total_tangent = hn::Zero(d),
      total_tangent_1 = hn::Zero(d), slope_before = hn::Zero(d), slope = hn::Zero(d);
    std::int64_t j = 0;
    if (tangents) {
      slope_before = hn::LoadU(d, block.slope + column);
      slope = hn::IfThenElse(hn::Gt(largest, before),
                             SlopeOf(d, largest, slope_before, scores, tangents, keys, pitch),
                             slope_before);
      for (; j + 2 <= keys; j += 2) {
        const V p = weight(d, hn::Sub(hn::LoadU(d, scores + j * pitch), shift));
        const V p_1 = weight(d, hn::Sub(hn::LoadU(d, scores + (j + 1) * pitch), shift));
        const V t = hn::Mul(p, hn::Sub(hn::LoadU(d, tangents + j * pitch), slope)),
                t_1 = hn::Mul(p_1, hn::Sub(hn::LoadU(d, tangents + (j + 1) * pitch), slope));
        hn::StoreU(p, d, scores + j * pitch), hn::StoreU(p_1, d, scores + (j + 1) * pitch);
        hn::StoreU(t, d, tangents + j * pitch), hn::StoreU(t_1, d, tangents + (j + 1) * pitch);
        total = hn::Add(total, p), total_1 = hn::Add(total_1, p_1);
        total_tangent = hn::Add(total_tangent, t), total_tangent_1 = hn::Add(total_tangent_1, t_1);
      }
      if (j < keys) {
        const V p = weight(d, hn::Sub(hn::LoadU(d, scores + j * pitch), shift)),
                t = hn::Mul(p, hn::Sub(hn::LoadU(d, tangents + j * pitch), slope));
        hn::StoreU(p, d, scores + j * pitch), hn::StoreU(t, d, tangents + j * pitch);
        total = hn::Add(total, p), total_tangent = hn::Add(total_tangent, t);
      }
    } else {
      for (; j + 2 <= keys; j += 2) {
        const V p = weight(d, hn::Sub(hn::LoadU(d, scores + j * pitch), shift));
        const V p_1 = weight(d, hn::Sub(hn::LoadU(d, scores + (j + 1) * pitch), shift));
        hn::StoreU(p, d, scores + j * pitch), hn::StoreU(p_1, d, scores + (j + 1) * pitch);
        total = hn::Add(total, p), total_1 = hn::Add(total_1, p_1);
      }
      if (j < keys) {
        const V p = weight(d, hn::Sub(hn::LoadU(d, scores + j * pitch), shift));
        hn::StoreU(p, d, scores + j * pitch);
        total = hn::Add(total, p);
      }
    }
    total = hn::Add(total, total_1), total_tangent = hn::Add(total_tangent, total_tangent_1);
    if (!hn::AllTrue(d, hn::Eq(largest, before))) {
      const V shrink = weight(d, hn::Sub(before, shift));
      hn::StoreU(largest, d, block.largest + column);
      // Sums of p (tangent - slope_before) become sums of p (tangent - slope).
      const V down = hn::Sub(slope_before, slope);
      const auto adapt = [&](T* of_p, T* of_t) HWY_ATTR {
        const V sum = hn::LoadU(d, of_p);
        hn::StoreU(hn::Mul(sum, shrink), d, of_p);
        if (tangents)
          hn::StoreU(hn::Mul(hn::MulAdd(down, sum, hn::LoadU(d, of_t)), shrink), d, of_t);
      };
      if (tangents) hn::StoreU(slope, d, block.slope + column);
      adapt(block.total + column, tangents ? block.total_tangent + column : nullptr);
      for (std::int64_t f = 0; f < block.features; ++f)
        adapt(block.sum + f * pitch + column,
              tangents ? block.sum_tangent + f * pitch + column : nullptr);
    }
    hn::StoreU(hn::Add(hn::LoadU(d, block.total + column), total), d, block.total + column);
    if (tangents)
      hn::StoreU(hn::Add(hn::LoadU(d, block.total_tangent + column), total_tangent), d,
                 block.total_tangent + column);
  }
}

template <class T>
void Finish(const SoftmaxBlock<T>& block) {
  const Vectors<T> d;
  using V = hn::Vec<Vectors<T>>;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d)), pitch = block.columns;
  for (std::int64_t column = 0; column < block.columns; column += lanes) {
    const V largest = hn::LoadU(d, block.largest + column),
            total = hn::LoadU(d, block.total + column);
    // Over nothing, where every key is masked or there is none: y = 0 and lse = -inf.
    const V inverse =
        hn::IfThenZeroElse(hn::Eq(total, hn::Zero(d)), hn::Div(hn::Set(d, T{1}), total));
    hn::StoreU(hn::Add(largest, log(d, total)), d, block.total + column);
    if (block.sum_tangent) {
      const V lse_tangent = hn::Mul(hn::LoadU(d, block.total_tangent + column), inverse);
      hn::StoreU(hn::Add(hn::LoadU(d, block.slope + column), lse_tangent), d,
                 block.total_tangent + column);
      for (std::int64_t f = 0; f < block.features; ++f) {
        T *sum = block.sum + f * pitch + column,
          *sum_tangent = block.sum_tangent + f * pitch + column;
        const V y = hn::Mul(hn::LoadU(d, sum), inverse);
        hn::StoreU(y, d, sum);
        hn::StoreU(hn::NegMulAdd(lse_tangent, y, hn::Mul(hn::LoadU(d, sum_tangent), inverse)), d,
                   sum_tangent);
      }
    } else {
      for (std::int64_t f = 0; f < block.features; ++f) {
        T* sum = block.sum + f * pitch + column;
        hn::StoreU(hn::Mul(hn::LoadU(d, sum), inverse), d, sum);
      }
    }
  }
}

template <class T>
void FindRows(T* scores, const T* factors, const T* lse_cotangent, const BackwardRows<T>& rows,
              std::int64_t keys, std::int64_t columns) {
  const Vectors<T> d;
  using V = hn::Vec<Vectors<T>>;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V lowest = hn::Set(d, -std::numeric_limits<T>::infinity());
  for (std::int64_t column = 0; column < columns; column += lanes) {
    T* score = scores + column;
    const T* factor = factors + column;
    const V largest = LargestOf(d, lowest, score, keys, columns);
    // Scores of -inf then have weight 0 in a row over nothing, too.
    const auto nothing = hn::Eq(largest, lowest);
    const V shift = hn::IfThenZeroElse(nothing, largest);
    const V slope =
        hn::IfThenZeroElse(nothing, SlopeOf(d, largest, hn::Zero(d), score, factor, keys, columns));
    V total = hn::Zero(d), total_1 = hn::Zero(d), sum = hn::Zero(d), sum_1 = hn::Zero(d);
    const auto add = [&](std::int64_t j, V& of_p, V& of_t) HWY_ATTR {
      const V p = weight(d, hn::Sub(hn::LoadU(d, score + j * columns), shift));
      hn::StoreU(p, d, score + j * columns);
      of_p = hn::Add(of_p, p);
      of_t = hn::MulAdd(p, hn::Sub(hn::LoadU(d, factor + j * columns), slope), of_t);
    };
    std::int64_t j = 0;
    for (; j + 2 <= keys; j += 2) add(j, total, sum), add(j + 1, total_1, sum_1);
    if (j < keys) add(j, total, sum);
    total = hn::Add(total, total_1), sum = hn::Add(sum, sum_1);
    const V inverse =
        hn::IfThenZeroElse(hn::Eq(total, hn::Zero(d)), hn::Div(hn::Set(d, T{1}), total));
    hn::StoreU(shift, d, rows.shift + column), hn::StoreU(slope, d, rows.slope + column);
    hn::StoreU(inverse, d, rows.inverse + column);
    hn::StoreU(hn::MulSub(sum, inverse, hn::LoadU(d, lse_cotangent + column)), d,
               rows.delta + column);
  }
}

template <class T>
void Exponentials(T* scores, const T* shift, std::int64_t keys, std::int64_t columns) {
  const Vectors<T> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t j = 0; j < keys; ++j)
    for (std::int64_t column = 0; column < columns; column += lanes) {
      T* score = scores + j * columns + column;
      hn::StoreU(weight(d, hn::Sub(hn::LoadU(d, score), hn::LoadU(d, shift + column))), d, score);
    }
}

template <class T>
void Backward(T* scores, T* factors, const BackwardRows<T>& rows, std::int64_t keys,
              std::int64_t columns) {
  const Vectors<T> d;
  using V = hn::Vec<Vectors<T>>;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t column = 0; column < columns; column += lanes) {
    const V inverse = hn::LoadU(d, rows.inverse + column),
            slope = hn::LoadU(d, rows.slope + column), delta = hn::LoadU(d, rows.delta + column);
    for (std::int64_t j = 0; j < keys; ++j) {
      T *score = scores + j * columns + column, *factor = factors + j * columns + column;
      const V p = hn::Mul(hn::LoadU(d, score), inverse);
      hn::StoreU(p, d, score);
      // Not factor - (slope + delta): the largest key's factor must cancel exactly.
      hn::StoreU(hn::Mul(p, hn::Sub(hn::Sub(hn::LoadU(d, factor), slope), delta)), d, factor);
    }
  }
}

template <class T>
void Scale(T* x, T factor, std::int64_t count) {
  const Vectors<T> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < count; i += lanes)
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, factor)), d, x + i);
}

template <class T>
void Add(T* x, const T* other, std::int64_t count) {
  const Vectors<T> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < count; i += lanes)
    hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, other + i)), d, x + i);
}

template <class T>
const AttentionKernels<T>* Kernels() {
  static const AttentionKernels<T> kernels{&Softmax<T>,  &Finish<T>, &FindRows<T>, &Exponentials<T>,
                                           &Backward<T>, &Scale<T>,  &Add<T>};
  return &kernels;
}

const AttentionKernels<float>* AttentionF32() { return Kernels<float>(); }
const AttentionKernels<double>* AttentionF64() { return Kernels<double>(); }

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fluxion::cpu_backend {

HWY_EXPORT(AttentionF32);
HWY_EXPORT(AttentionF64);

template <>
const AttentionKernels<float>& attention_kernels<float>() {
  return *HWY_DYNAMIC_DISPATCH(AttentionF32)();
}
template <>
const AttentionKernels<double>& attention_kernels<double>() {
  return *HWY_DYNAMIC_DISPATCH(AttentionF64)();
}

}  // namespace fluxion::cpu_backend
#endif
