// Transformations of finished tapes: axes are merged and reordered, tapes joined, dead parts
// removed.
#pragma once

#include <vector>

#include "engine/plan/id.h"
#include "engine/program/program.h"

namespace fluxion::plan {

// Rewrites `tape` so that its iteration space runs in the row-major order of `buffer`. Returns
// false unless the tape reads each element of the buffer exactly once.
bool reorder_along(Tape& tape, BufferId buffer);

// Splits the tapes' axes until their extents agree. Returns false if they can't.
bool common_axes(Tape& a, Tape& b);

// Merges neighbouring axes wherever every index of the tape runs through them as through one.
void merge_axes(Tape& tape);

// Appends b's instructions, loads and stores to a. The extents must agree.
void append_tape(Tape& a, const Tape& b);

// Replaces loads of `buffer` by result `result` of the contraction whose epilogue the tape is.
void replace_load_by_result(Tape& tape, BufferId buffer, std::int32_t result);

// Drops loads, instructions, indices and ranges that no store needs, and merges equal ones.
void tidy(Tape& tape);

// The buffers a kernel reads and writes.
std::vector<BufferId> reads(const Kernel& kernel);
std::vector<BufferId> writes(const Kernel& kernel);

}  // namespace fluxion::plan
