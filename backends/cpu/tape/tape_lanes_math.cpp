// Kernels of the elementary functions.
#include "backends/cpu/tape/tape_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/tape/tape_lanes_math.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "backends/cpu/runtime/with_f64.h"
#include "backends/cpu/tape/math-inl.h"
#include "backends/cpu/tape/tape_lanes-inl.h"
#include "engine/graph/op_names.h"

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {

// exp_function()(d, x) = exp(d, x) of math-inl.h, and so for every op that has a function there.
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule)                        \
  struct name##_function {                                                                   \
    template <class D, class... V>                                                           \
    HWY_INLINE auto operator()(D d, V... operands) const -> decltype(name(d, operands...)) { \
      return name(d, operands...);                                                           \
    }                                                                                        \
  };
#include "engine/graph/ops.def"
#undef FLUXION_OP

// Null where there is no such function of T.
template <class T, class F, int inputs>
constexpr ApplyKernel kernel_of() {
  using D = hn::ScalableTag<T>;
  using V = hn::Vec<D>;
  if constexpr (inputs == 1 && requires(F f, D d, V x) { f(d, x); })
    return unary<T, F>;
  else if constexpr (inputs == 2 && requires(F f, D d, V x) { f(d, x, x); })
    return binary<T, F>;
  else
    return nullptr;
}

template <class T>
ApplyKernel math_kernel(Op op) {
  switch (op) {
#define FLUXION_OP(name, inputs, outputs, attributes, op_class, rule) \
  case Op::name:                                                      \
    return kernel_of<T, name##_function, inputs>();
#include "engine/graph/ops.def"
#undef FLUXION_OP
  }
  return nullptr;
}

// f(d, x) -> both results
template <class T, class F>
void pair(std::byte* first, std::int64_t first_step, std::byte* second, std::int64_t second_step,
          const Lanes& in, std::int64_t rows, std::int64_t columns) {
  const hn::ScalableTag<T> d;
  const size_t vector = hn::Lanes(d);
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* x = reinterpret_cast<const T*>(in.data + row * in.row_step);
    T* a = row_of<T>(first, first_step, row);
    T* b = row_of<T>(second, second_step, row);
    for (std::int64_t i = 0; i < columns; i += vector) {
      const auto [one, other] = F()(d, hn::LoadU(d, x + i));
      hn::StoreU(one, d, a + i);
      hn::StoreU(other, d, b + i);
    }
  }
}

struct SigmoidPair {
  template <class D, class V>
  HWY_INLINE auto operator()(D d, V x) const {
    return sigmoid_and_slope(d, x);
  }
};
struct ErfcPair {
  template <class D, class V>
  HWY_INLINE auto operator()(D d, V x) const {
    return erfc_and_bell(d, x);
  }
};
struct Bell {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return bell(d, x);
  }
};

PairKernel FindPairKernel(LaneFunction first, LaneFunction second, DType dtype) {
  const bool single = dtype == DType::f32;
  if (!single && dtype != DType::f64) return nullptr;
  if (first == LaneFunction{Op::sigmoid} && second == LaneFunction{Op::sigmoid_slope})
    return single ? pair<float, SigmoidPair> : pair<Wide, SigmoidPair>;
  if (first == LaneFunction{Op::erfc} && second == LaneFunction{Op::exp, true})
    return single ? pair<float, ErfcPair> : pair<Wide, ErfcPair>;
  return nullptr;
}

ApplyKernel FindBellKernel(DType dtype) {
  return dtype == DType::f32   ? unary<float, Bell>
         : dtype == DType::f64 ? unary<Wide, Bell>
                               : nullptr;
}

ApplyKernel FindMathKernel(Op op, DType dtype) {
  return dtype == DType::f32   ? math_kernel<float>(op)
         : dtype == DType::f64 ? math_kernel<Wide>(op)
                               : nullptr;
}

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fluxion::cpu_backend {

HWY_EXPORT(FindMathKernel);
HWY_EXPORT(FindPairKernel);
HWY_EXPORT(FindBellKernel);

ApplyKernel find_math_kernel(Op op, DType dtype) {
  return HWY_DYNAMIC_DISPATCH(FindMathKernel)(op, dtype);
}
ApplyKernel find_bell_kernel(DType dtype) { return HWY_DYNAMIC_DISPATCH(FindBellKernel)(dtype); }
PairKernel find_pair_kernel(LaneFunction first, LaneFunction second, DType dtype) {
  return HWY_DYNAMIC_DISPATCH(FindPairKernel)(first, second, dtype);
}

}  // namespace fluxion::cpu_backend
#endif
