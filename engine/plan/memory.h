// Memory: which output takes over which donated input, and the offsets of temporaries in the arena.
#pragma once

#include <limits>
#include <set>
#include <vector>

#include "engine/plan/kernel_graph.h"
#include "engine/program/limits.h"

namespace fluxion::plan {

// The order in which kernels run, and the place of each in it.
struct Order {
  std::vector<KernelId> kernels;
  Indexed<KernelId, std::int32_t> place;
};

// Whether `kernel` may write one of `outputs` over one of `inputs`: at each point it reads the same
// element of the input that it writes of the output, and no other.
bool can_overwrite(const Kernel& kernel, const std::set<BufferId>& inputs,
                   const std::set<BufferId>& outputs);

// Per buffer: the input that it takes over, or none. An output takes over a donated input of the
// same type if its kernel commits and reads the input element for element, and no later kernel
// reads it.
Indexed<BufferId, BufferId> take_over(const Kernels& kernels, const Traffic& traffic,
                                      const Slots& slots, const Order& order,
                                      const Indexed<KernelId, bool>& commits,
                                      const std::set<BufferId>& donated);

// Offsets of the temporaries, by buffer, and the size of the arena that holds them. A value shares
// the memory of an operand if its kernel can overwrite that element for element and no later kernel
// reads it. Offsets are as `limits` has them: multiples of its `alignment`, and no temporary lies
// in two blocks of `block_bytes`. Sizes are those of `storage`.
struct Arena {
  Indexed<BufferId, std::int64_t> offsets;
  std::int64_t bytes = 0;
};
Arena place_temporaries(const Kernels& kernels, const Traffic& traffic, const Slots& slots,
                        const Order& order, const KernelLimits& limits,
                        const Storage& storage = {});

// A block of memory that is in use while kernels `from` to `to`, inclusive, run.
struct Lifetime {
  std::int32_t from = 0, to = 0;
  std::int64_t bytes = 0;
  std::int64_t offset = 0;  // set by the functions below
};
// Give every lifetime an offset such that no two overlap in both time and memory and none lies in
// two blocks of `block` bytes. They return the bytes that all span.
// place_by_size: the largest first, each at the lowest offset that is free for its whole lifetime.
// place_by_time: in order of `from`, with a list of free ranges. The result is a little larger, but
// the time is not quadratic; for very long programs.
constexpr std::int64_t one_block = std::numeric_limits<std::int64_t>::max();
std::int64_t place_by_size(std::vector<Lifetime>& lifetimes, std::int64_t block = one_block);
std::int64_t place_by_time(std::vector<Lifetime>& lifetimes, std::int64_t block = one_block);

}  // namespace fluxion::plan
