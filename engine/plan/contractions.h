#pragma once

#include <set>
#include <vector>

#include "engine/backend.h"
#include "engine/plan/lower.h"

namespace fluxion::plan {

// Merges contractions that share an operand, and maps into the contractions whose results they read. `kept` are buffers that must be written whoever
// reads them.
void merge_into_contractions(std::vector<LoweredKernel>& kernels, std::size_t buffers, const std::set<std::int32_t>& kept,
                             const KernelLimits& limits);

}  // namespace fluxion::plan
