#pragma once

#include <set>

#include "engine/backend.h"
#include "engine/plan/lower.h"

namespace fluxion::plan {

// Merges contractions that share an operand, and merges maps into the contractions whose results
// they read. The buffers `kept` are written even if no kernel reads them. A map that can write one
// of `kept` over one of `donated` stays its own kernel: as an epilogue it could not overwrite, and
// it would keep the product's operands alive until the end of the step.
void merge_into_contractions(Kernels& kernels, const Slots& slots, const std::set<BufferId>& kept,
                             const std::set<BufferId>& donated, const Capabilities& device);

}  // namespace fluxion::plan
