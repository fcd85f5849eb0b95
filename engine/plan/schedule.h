#pragma once

#include <set>
#include <vector>

#include "engine/plan/lower.h"

namespace fluxion::plan {

// Whether `kernel` may write one of `outputs` over one of `inputs`: it reads the input only at the
// very element where it writes the output.
bool can_overwrite(const Kernel& kernel, const std::set<std::int32_t>& inputs,
                   const std::set<std::int32_t>& outputs);

// Orders the kernels: inputs before users, then those that free memory, else in the order of the
// graph; those that may overwrite a donated input come last. What reads the result of an `after`
// runs when its token is known. `slots` are the buffers' roles; donated inputs are named by input
// index. Temporaries lie at multiples of `alignment` bytes and are as
// large as `storage` says. Fills offsets of temporaries,
// donations, arena size and commit point of `program`, whose buffers it renumbers to those in use.
void schedule(std::vector<LoweredKernel> kernels, std::vector<BufferSlot> slots,
              const std::set<std::int64_t>& donated, std::int64_t alignment,
              const Storage& storage, Program& program);

}  // namespace fluxion::plan
