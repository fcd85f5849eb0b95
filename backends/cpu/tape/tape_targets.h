// The instruction sets that the CPU backend is compiled for. Include before any Highway header.
//   x86: the compiler's baseline (emulated vectors), SSE4, AVX2, AVX3 (AVX-512)
//   ARM: NEON
#pragma once

#include <hwy/detect_targets.h>

#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
