// Kernels of the elementary functions.
#include "backends/cpu/tape/tape_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/tape/tape_lanes_math.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "backends/cpu/tape/math-inl.h"
#include "backends/cpu/tape/tape_lanes-inl.h"
#include "engine/graph/op_names.h"

HWY_BEFORE_NAMESPACE();
namespace fluxion::cpu_backend {
namespace HWY_NAMESPACE {

struct Exp {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return exp(d, x);
  }
};
struct Expm1 {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return expm1(d, x);
  }
};
struct Log {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return log(d, x);
  }
};
struct Log1p {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return log1p(d, x);
  }
};
struct Sin {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return sin(d, x);
  }
};
struct Cos {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return cos(d, x);
  }
};
struct Tanh {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return tanh(d, x);
  }
};
struct Sigmoid {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return sigmoid(d, x);
  }
};
struct Erf {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return erf(d, x);
  }
};
struct Pow {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x, V y) const {
    return pow(d, x, y);
  }
};
struct Atan2 {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V y, V x) const {
    return atan2(d, y, x);
  }
};

template <class T>
ApplyKernel math_kernel(Op op) {
  switch (op) {
    case Op::exp:
      return unary<T, Exp>;
    case Op::expm1:
      return unary<T, Expm1>;
    case Op::log:
      return unary<T, Log>;
    case Op::log1p:
      return unary<T, Log1p>;
    case Op::sin:
      return unary<T, Sin>;
    case Op::cos:
      return unary<T, Cos>;
    case Op::tanh:
      return unary<T, Tanh>;
    case Op::sigmoid:
      return unary<T, Sigmoid>;
    case Op::erf:
      return unary<T, Erf>;
    case Op::pow:
      return binary<T, Pow>;
    case Op::atan2:
      return binary<T, Atan2>;
    default:
      return nullptr;
  }
}

ApplyKernel FindMathKernel(Op op, DType dtype) {
  return dtype == DType::f32   ? math_kernel<float>(op)
         : dtype == DType::f64 ? math_kernel<double>(op)
                               : nullptr;
}

}  // namespace HWY_NAMESPACE
}  // namespace fluxion::cpu_backend
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fluxion::cpu_backend {

HWY_EXPORT(FindMathKernel);

ApplyKernel find_math_kernel(Op op, DType dtype) {
  return HWY_DYNAMIC_DISPATCH(FindMathKernel)(op, dtype);
}

}  // namespace fluxion::cpu_backend
#endif
