// The peak rate of the processor's multiply-add units, which matrix products are compared with.
#pragma once

namespace fluxion {

// Floating-point operations per second (a multiply-add counts two) of f32 multiply-adds on
// registers alone, with the widest vectors that the backend would use, on `threads` threads at once
// (0: one per core): the best of several short rounds within about `seconds`. Throws Error for a
// negative thread count.
double measure_fma_rate(int threads, double seconds);

}  // namespace fluxion
