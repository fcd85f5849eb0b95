// The reference backend: a plain interpreter that runs one op at a time and defines each op. It
// computes every value in f64, or in 64-bit integers, and rounds it to the stored dtype. It is
// slow; every plan and every other backend is tested against it.
#pragma once

#include "engine/device.h"

namespace fluxion {

// Each call makes a new device. Tensors of different devices can't be operands of one op.
Device reference();

}  // namespace fluxion
