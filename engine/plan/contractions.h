#pragma once

#include <set>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/plan/lower.h"

namespace fluxion::plan {

// Merges contractions that share an operand, and maps into the contractions whose results they
// read, where the whole fits the limits. `kept` are buffers that must be written whoever reads
// them. A map that can write one of them over one of `donated` stays a kernel of its own: as an
// epilogue it could not, and would hold the product's operands until the end of the step.
void merge_into_contractions(std::vector<LoweredKernel>& kernels,
                             std::span<const BufferSlot> buffers,
                             const std::set<std::int32_t>& kept,
                             const std::set<std::int32_t>& donated, const KernelLimits& limits);

}  // namespace fluxion::plan
