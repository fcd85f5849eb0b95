// The limits of a backend's kernels: a contract between planner and backend.
//
// A backend states its limits in its capabilities. The planner splits work until every kernel fits
// them; Backend::compile refuses any other program with the same function, `fits`.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "engine/program/program.h"

namespace fluxion {

struct KernelLimits {
  bool fuses = true;  // false: one OpKernel per op

  // Of one kernel. Axes of size 1 don't count.
  int max_axes = 10;     // of an iteration space, an op's tensor, the digits of a matrix operand
  int max_guards = 16;   // of one load
  int max_buffers = 96;  // distinct buffers, read or written
  int max_loads = 64;    // loads of a tape, operands of products, inputs of an op
  int max_stores = 32;   // stores of a tape, outputs of an op
  int max_instructions = 256;
  int max_results = 4;  // of a contraction

  // Of a row that must stay resident, because its elements are read again after a reduction over it
  // (softmax, layer norm).
  std::int64_t max_row_elements = 65536;
  std::int64_t max_row_bytes = std::numeric_limits<std::int64_t>::max();  // of one value of the row

  // The most features of a head for which there are kernels of attention and its derivatives;
  // larger heads use the expansion. 0: no such kernels.
  std::int64_t max_attention_head = 0;

  // Of memory.
  std::int64_t alignment = 64;  // of temporaries in the arena, in bytes; a multiple of 64
  std::int64_t max_binding_bytes = std::numeric_limits<std::int64_t>::max();  // of one buffer
  // The arena is made of blocks of so many bytes, a multiple of `alignment` and no less than
  // max_binding_bytes; no temporary lies in two of them.
  std::int64_t block_bytes = std::numeric_limits<std::int64_t>::max();
  int index_bits = 64;  // or 32: addresses, indices and element counts must fit into an i32

  // The largest element count, address or index value that a kernel may use.
  std::int64_t max_index() const {
    return index_bits == 32 ? std::numeric_limits<std::int32_t>::max()
                            : std::numeric_limits<std::int64_t>::max();
  }
};

// No limits, except that there are no attention kernels: for a backend that interprets op by op.
KernelLimits no_limits();

// The least that a backend that fuses must offer. Every graph can be split into kernels within
// these.
KernelLimits least_limits();

enum class Limit : std::uint8_t {
  none,
  axes,
  guards,
  buffers,
  loads,
  stores,
  instructions,
  results,
  row_elements,
  row_bytes,
  attention_head,
  alignment,
  binding,
  index,
};
// The name of the member of KernelLimits: "max_axes".
std::string_view to_string(Limit limit);

// Whether something fits, and which limit it breaks if it doesn't.
struct Fit {
  Limit broken = Limit::none;
  std::int64_t found = 0, allowed = 0;
  std::int32_t buffer = -1;  // of a limit on memory: the buffer that breaks it
  explicit operator bool() const { return broken == Limit::none; }
};
// "9 distinct buffers, at most 8 (max_buffers)"
std::string to_string(const Fit& fit);

// Whether `kernel`, over these buffers, is within the limits. The first broken one is reported,
// those of memory before all others.
Fit fits(const Kernel& kernel, std::span<const BufferSlot> buffers, const KernelLimits& limits,
         const Storage& storage = {});

// Throws Error, which names kernel, limit and device, if a kernel of the program does not fit.
void require_fits(const Program& program, const KernelLimits& limits, const Storage& storage,
                  std::string_view device);

// Throws Error, which names the member, if `limits` offers less than least_limits().
void require_least(const KernelLimits& limits, std::string_view device);

}  // namespace fluxion
