// The largest of some errors, where a NaN is larger than all.
#pragma once

#include <cmath>

namespace fluxion::testing {

// std::max would forget a NaN: it compares false with everything.
inline double worse_of(double worst, double error) {
  if (std::isnan(error)) return HUGE_VAL;
  return error > worst ? error : worst;
}

}  // namespace fluxion::testing
