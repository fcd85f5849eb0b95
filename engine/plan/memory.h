// Where values lie: which output takes over a donated input, and the offsets of temporaries in one
// arena.
#pragma once

#include <set>
#include <vector>

#include "engine/plan/kernel_graph.h"

namespace fluxion::plan {

// The order in which kernels run, and the place of each in it.
struct Order {
  std::vector<KernelId> kernels;
  Indexed<KernelId, std::int32_t> place;
};

// Whether `kernel` may write one of `outputs` over one of `inputs`: it reads the input only at the
// very element where it writes the output.
bool can_overwrite(const Kernel& kernel, const std::set<BufferId>& inputs,
                   const std::set<BufferId>& outputs);

// Per buffer: the input that it takes over, or none. An output takes over a donated input of its
// type that its kernel reads element for element and nobody reads later, if its kernel commits.
Indexed<BufferId, BufferId> take_over(const Kernels& kernels, const Traffic& traffic,
                                      const Slots& slots, const Order& order,
                                      const Indexed<KernelId, bool>& commits,
                                      const std::set<BufferId>& donated);

// Offsets of the temporaries, by buffer, and the arena that holds them. A value written element
// for element over an operand that nobody reads later shares its memory. Offsets are multiples of
// `alignment` bytes, sizes those of `storage`.
struct Arena {
  Indexed<BufferId, std::int64_t> offsets;
  std::int64_t bytes = 0;
};
Arena place_temporaries(const Kernels& kernels, const Traffic& traffic, const Slots& slots,
                        const Order& order, std::int64_t alignment, const Storage& storage = {});

// A stretch of memory that is in use while kernels `from` to `to`, inclusive, run.
struct Lifetime {
  std::int32_t from = 0, to = 0;
  std::int64_t bytes = 0;
  std::int64_t offset = 0;  // the answer
};
// Gives every lifetime an offset, so that no two overlap in time and memory; the bytes they span.
// By size: the largest first, each at the lowest place free for all of its life. By time: with a
// list of free ranges; a little larger, but not quadratic: for very long programs.
std::int64_t place_by_size(std::vector<Lifetime>& lifetimes);
std::int64_t place_by_time(std::vector<Lifetime>& lifetimes);

}  // namespace fluxion::plan
