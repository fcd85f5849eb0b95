// What a backend's kernels can hold: a contract between planner and backend.
//
// A backend states its limits in its capabilities. The planner splits work until every kernel that
// it hands over fits them; a backend may refuse anything else with the same function, `fits`.
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
  int max_axes = 10;     // of an iteration space, of a matrix operand's digits, of an op's tensor
  int max_guards = 16;   // ranges that guard one load
  int max_buffers = 96;  // distinct ones, read or written
  int max_loads = 64;    // loads of a tape, operands of products, inputs of an op
  int max_stores = 32;   // stores of a tape, outputs of an op
  int max_instructions = 256;
  int max_results = 4;  // of a contraction

  // Of a row that must stay resident because something in it depends on a reduction over it
  // (softmax, layer norm).
  std::int64_t max_row_elements = 65536;
  std::int64_t max_row_bytes = std::numeric_limits<std::int64_t>::max();  // of one value of the row

  // Features up to which there are kernels for attention and its derivatives; beyond, the expansion
  // runs. 0: no such kernels.
  std::int64_t max_attention_head = 0;

  // Of memory.
  std::int64_t alignment = 64;  // of temporaries in the arena, in bytes; a multiple of 64
  std::int64_t max_binding_bytes = std::numeric_limits<std::int64_t>::max();  // of one buffer
  int index_bits = 64;  // 32: addresses, indices and counts of elements fit into an i32

  // The largest element count, address or index value that a kernel may use.
  std::int64_t max_index() const {
    return index_bits == 32 ? std::numeric_limits<std::int32_t>::max()
                            : std::numeric_limits<std::int64_t>::max();
  }
};

// Limits that nothing breaks, for a backend that interprets op by op.
KernelLimits no_limits();

// The least that a backend which fuses must offer. Whatever the graph, it can be split into kernels
// within these.
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
  std::int32_t buffer = -1;  // of limits on memory: whose
  explicit operator bool() const { return broken == Limit::none; }
};
// "9 distinct buffers, at most 8 (max_buffers)"
std::string to_string(const Fit& fit);

// Whether `kernel`, over these buffers, is within the limits.
Fit fits(const Kernel& kernel, std::span<const BufferSlot> buffers, const KernelLimits& limits);

// Throws Error naming kernel, limit and device if a kernel of the program does not fit.
void require_fits(const Program& program, const KernelLimits& limits, std::string_view device);

// Throws Error naming the member if `limits` offers less than least_limits().
void require_least(const KernelLimits& limits, std::string_view device);

}  // namespace fluxion
