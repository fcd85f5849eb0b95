#pragma once

#include <set>
#include <vector>

#include "engine/plan/lower.h"

namespace fluxion::plan {

// Orders the kernels: inputs before users, else in the order of the graph; those that may overwrite a donated input come last. `slots` are the
// buffers' roles; donated inputs are named by input index. Fills offsets of temporaries, donations, arena size and commit point of `program`, whose
// buffers it renumbers to those in use.
void schedule(std::vector<LoweredKernel> kernels, std::vector<BufferSlot> slots, const std::vector<std::int32_t>& donated, Program& program);

}  // namespace fluxion::plan
