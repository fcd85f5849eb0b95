// Running a test on every instruction set that was compiled in and runs on this machine.
#pragma once

#include <hwy/targets.h>

#include <cstdint>

#include "backends/cpu/tape/tape_targets.h"

namespace fluxion::testing {

// Calls f(name) once for each of them.
template <class F>
void for_each_target(F&& f) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    f(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

}  // namespace fluxion::testing
