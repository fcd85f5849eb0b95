// The instances of a kernel for the dtypes that are computed in.
#pragma once

#include <cstdint>

#include "backends/cpu/runtime/with_f64.h"
#include "engine/graph/dtype.h"

namespace fluxion::cpu_backend {

// of(T{}) for the C++ type T of a dtype that is computed in; null for all other dtypes.
template <class Of>
auto instance_of(DType dtype, const Of& of) -> decltype(of(float{})) {
  switch (dtype) {
    case DType::f32:
      return of(float{});
    case DType::f64:
      return of(Wide{});
    case DType::i32:
      return of(std::int32_t{});
    case DType::u32:
      return of(std::uint32_t{});
    default:
      return nullptr;
  }
}

}  // namespace fluxion::cpu_backend
