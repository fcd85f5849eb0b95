#pragma once

#include <set>

#include "engine/plan/lower.h"
#include "engine/program/limits.h"

namespace fluxion::plan {

// Merges contractions that share an operand, and maps into the contractions whose results they
// read. `kept` are buffers that must be written whoever reads them. A map that can write one of
// them over one of `donated` stays a kernel of its own: as an epilogue it could not, and would hold
// the product's operands until the end of the step.
void merge_into_contractions(Kernels& kernels, const Slots& slots, const std::set<BufferId>& kept,
                             const std::set<BufferId>& donated, const KernelLimits& limits);

}  // namespace fluxion::plan
