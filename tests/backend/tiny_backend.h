// A device whose kernels can hold next to nothing. It runs them on the CPU backend, and refuses
// with an Error every program that has a kernel beyond its limits: what runs here has been split.
#pragma once

#include "engine/device.h"

namespace fluxion::testing {

// 8 buffers, 6 axes, 32 instructions, rows of 4 KiB, 8 loads, 4 stores, 2 guards, indices of 32
// bits, temporaries at multiples of 256 bytes.
KernelLimits tiny_limits();

struct TinyOptions {
  KernelLimits limits = tiny_limits();
  int threads = 1;
};
Device tiny(const TinyOptions& options = {});

}  // namespace fluxion::testing
