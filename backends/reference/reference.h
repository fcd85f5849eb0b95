// The reference backend: a plain interpreter, one op at a time, that defines what each op means.
// Every value is computed in f64 (integers in 64-bit integers) and rounded to its stored dtype.
// Slow on purpose; every plan and every other backend is tested against it.
#pragma once

#include "engine/device.h"

namespace fluxion {

// A device of its own: tensors of two devices don't mix.
Device reference();

}  // namespace fluxion
