// Whether kernels for f64 are compiled. The runtime library alone has none: no exported sampler
// computes in f64, and cpu.cpp refuses programs that do.
#pragma once

#include "engine/graph/dtype.h"

namespace fluxion::cpu_backend {

#if defined(FLUXION_CPU_WITHOUT_F64)
inline constexpr bool with_f64 = false;
#else
inline constexpr bool with_f64 = true;
#endif

// The C++ type of f64 where kernels are chosen by dtype. Without f64 a type that has its kernels
// anyway stands there.
template <bool>
struct WideType {
  using Type = double;
};
template <>
struct WideType<false> {
  using Type = float;
};
using Wide = WideType<with_f64>::Type;

}  // namespace fluxion::cpu_backend
