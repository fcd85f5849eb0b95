// Scheduling: when each kernel runs and where each value lies. It is done in five passes, in this
// order, each a function; the last two, take_over and place_temporaries, are in memory.h.
#pragma once

#include <set>
#include <vector>

#include "engine/plan/kernel_graph.h"
#include "engine/plan/memory.h"

namespace fluxion::plan {

// Per kernel: buffers that must be written before it runs, besides those that it reads.
using Waits = Indexed<KernelId, std::set<BufferId>>;

// Barriers. `after(x, token)` moves no data: this removes its kernel, and readers of its result
// read x itself, once the token is written. If the result is an output, the kernel stays, as a
// copy.
Waits dissolve_barriers(Kernels& kernels, const Slots& slots);

// The commit set: per kernel, whether it could overwrite a donated input, or depends on one that
// could. These run last, so that a failure before them leaves the inputs unchanged.
Indexed<KernelId, bool> commit_set(const Kernels& kernels, const KernelGraph& dependences,
                                   const std::set<BufferId>& donated,
                                   const std::set<BufferId>& outputs);

// The order: inputs before users, the commit set last. Kernels that free more memory than they take
// run as early as possible, the others in the order of the graph.
Order find_order(const Kernels& kernels, const Traffic& traffic, const KernelGraph& dependences,
                 const Slots& slots, const Indexed<KernelId, bool>& commits,
                 const Storage& storage = {});

// All five passes. `donated` holds input indices. Temporaries lie where `limits` allows and have
// the sizes of `storage`. Fills the buffers of `program` (those in use), its kernels in order, its
// donations, arena size and commit point.
void schedule(Kernels kernels, Slots slots, const std::set<std::int64_t>& donated,
              const KernelLimits& limits, const Storage& storage, Program& program);

}  // namespace fluxion::plan
