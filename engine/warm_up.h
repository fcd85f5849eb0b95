// Readiness before the first call.
#pragma once

#include "engine/compile.h"

namespace fluxion {

// Makes a compiled function ready for arguments of these types without running it: traced, planned,
// and its kernels compiled by the driver where a device has one. The first call then takes little
// longer than the next. Throws what that call would throw before it runs.
template <class F, class... Args>
void warm_up(const Compiled<F>& function, const Args&... arguments) {
  function.program(arguments...);
}

}  // namespace fluxion
