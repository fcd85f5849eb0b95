// The loops of the tape interpreter's kernels, compiled once per target.
#if defined(FLUXION_CPU_TAPE_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FLUXION_CPU_TAPE_LANES_INL_H_
#undef FLUXION_CPU_TAPE_LANES_INL_H_
#else
#define FLUXION_CPU_TAPE_LANES_INL_H_
#endif

#include <hwy/highway.h>

#include "backends/cpu/tape/tape_lanes.h"

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// One row of an operand. For a splat, every load reads the same vector, so one loop serves rows and
// splats.
template <class T>
struct Row {
  HWY_INLINE void set(const Lanes& lanes, std::int64_t row, size_t vector) {
    at = reinterpret_cast<const T*>(lanes.data + row * lanes.row_step);
    step = vector;
    if (lanes.splat) {
      const T value = *at;
      for (size_t i = 0; i < vector; ++i) copies[i] = value;
      at = copies;
      step = 0;
    }
  }
  alignas(largest_vector_bytes) T copies[largest_vector_bytes / sizeof(T)];
  const T* at;
  size_t step;
};

// a b, and 0 where either is 0: strong_mul.
template <class D, class V>
HWY_INLINE V strong_product(D d, V a, V b) {
  const V zero = hn::Zero(d);
  return hn::IfThenZeroElse(hn::Or(hn::Eq(a, zero), hn::Eq(b, zero)), hn::Mul(a, b));
}

struct Add {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Add(a, b);
  }
};
struct Sub {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Sub(a, b);
  }
};
struct Mul {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Mul(a, b);
  }
};
// 0 wins over infinity and NaN.
struct StrongMul {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    return strong_product(d, a, b);
  }
};

template <class T>
HWY_INLINE T* row_of(std::byte* out, std::int64_t out_step, std::int64_t row) {
  return reinterpret_cast<T*>(out + row * out_step);
}

// f(d, x) -> vector of the same type
template <class T, class F>
void unary(std::byte* out, std::int64_t out_step, const Lanes* in, std::int64_t rows,
           std::int64_t columns) {
  const hn::ScalableTag<T> d;
  const size_t vector = hn::Lanes(d);
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* x = reinterpret_cast<const T*>(in[0].data + row * in[0].row_step);
    T* y = row_of<T>(out, out_step, row);
    for (std::int64_t i = 0; i < columns; i += vector)
      hn::StoreU(F()(d, hn::LoadU(d, x + i)), d, y + i);
  }
}

// f(d, a, b) -> vector of the same type
template <class T, class F>
void binary(std::byte* out, std::int64_t out_step, const Lanes* in, std::int64_t rows,
            std::int64_t columns) {
  const hn::ScalableTag<T> d;
  const size_t vector = hn::Lanes(d);
  Row<T> a, b;
  for (std::int64_t row = 0; row < rows; ++row) {
    a.set(in[0], row, vector);
    b.set(in[1], row, vector);
    T* y = row_of<T>(out, out_step, row);
    for (std::int64_t i = 0; i < columns; i += vector, a.at += a.step, b.at += b.step)
      hn::StoreU(F()(d, hn::LoadU(d, a.at), hn::LoadU(d, b.at)), d, y + i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#endif  // FLUXION_CPU_TAPE_LANES_INL_H_
