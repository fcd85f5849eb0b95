// Scheduling: when each kernel runs and where each value lies. Four passes, in this order, each a
// function of its own; the last is memory.h.
#pragma once

#include <set>
#include <vector>

#include "engine/plan/kernel_graph.h"
#include "engine/plan/memory.h"

namespace fluxion::plan {

// Per kernel: buffers that must be written before it runs, beside those that it reads.
using Waits = Indexed<KernelId, std::set<BufferId>>;

// Barriers. `after` moves nothing: whoever reads its result reads x itself, once the token is
// known. Takes these kernels away - but those whose result is an output, which are copies.
Waits dissolve_barriers(Kernels& kernels, const Slots& slots);

// The commit set: per kernel, whether it could write over a donated input, or depends on one that
// could. They run last, so that whatever fails before leaves the inputs as they were.
Indexed<KernelId, bool> commit_set(const Kernels& kernels, const KernelGraph& dependences,
                                   const std::set<BufferId>& donated,
                                   const std::set<BufferId>& outputs);

// The order: inputs before users, the commit set last, those that free more memory than they take
// as soon as they can, else as in the graph.
Order find_order(const Kernels& kernels, const Traffic& traffic, const KernelGraph& dependences,
                 const Slots& slots, const Indexed<KernelId, bool>& commits,
                 const Storage& storage = {});

// All four passes. Donated inputs are named by input index. Temporaries lie at multiples of
// `alignment` bytes and are as large as `storage` says. Fills buffers and kernels of `program` (in
// order, over the buffers in use), its donations, arena size and commit point.
void schedule(Kernels kernels, Slots slots, const std::set<std::int64_t>& donated,
              std::int64_t alignment, const Storage& storage, Program& program);

}  // namespace fluxion::plan
