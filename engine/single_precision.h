// Numbers of options and configurations, which are doubles, in the precision that networks compute
// with.
#pragma once

#include <cmath>
#include <limits>

namespace fluxion {

// True if the value is finite in f32, and 0 or less than normal there only if it is 0: kernels may
// take numbers that are less than normal for 0.
inline bool fits_single(double value) {
  using Single = std::numeric_limits<float>;
  const double size = std::abs(value);
  return value == 0 || (size >= Single::min() && size <= Single::max());
}

}  // namespace fluxion
