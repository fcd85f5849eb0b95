// Row reductions: what the kernel of a tape with reduced axes does, decided before it is emitted.
//
// A workgroup holds `slots` rows (or, across, groups of `width` neighbouring rows) and `lanes`
// invocations for each. In every pass a lane runs over its units of the row - `width` neighbouring
// elements, or one - and reduces them; then the lanes of a row are combined in a tree, whose order
// is fixed. A pass ends with the reductions that the next one reads. Elements are kept in registers
// from pass to pass if a lane has few, and else are read and computed again. All wide stores are in
// the last pass, because they may take over the memory that earlier passes read.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/vulkan/kernel.h"

namespace fluxion::vulkan_backend {

// The instructions of a tape by what they wait for.
struct TapeStages {
  // How many reductions, one after the other, an instruction's value depends on.
  std::vector<int> stage;
  // reductions[p]: instructions `reduce` whose operands have stage p.
  std::vector<std::vector<std::int32_t>> reductions;
  std::vector<std::int32_t> wide_stores, narrow_stores;
  std::size_t passes = 0;      // over the row
  std::size_t store_pass = 0;  // the pass with the wide stores, the last one
  std::vector<bool> used;      // by instruction: a store depends on it
};
TapeStages stages_of(const Tape& tape);

struct RowPlan {
  bool across = false;       // neighbouring invocations hold neighbouring rows, not elements
  std::uint32_t width = 1;   // elements (across: rows) that an invocation takes at once
  std::uint32_t lanes = 1;   // invocations for one row, a power of two
  std::uint32_t slots = 1;   // of rows in a workgroup
  std::uint32_t splits = 1;  // workgroups for one row; with more than one a second dispatch follows
  std::uint32_t unrolled = 0;  // units of a lane that are kept in registers; 0: a loop
  std::uint32_t rows = 1;      // or groups of rows
  std::uint32_t units = 0;     // of a row
};

// The tape with the axes in the order that suits memory: of the row axes, and of the others, the
// one whose neighbours are neighbours in memory comes last.
Tape ordered_for_memory(const Tape& tape);
// The tape with its row axes first, for rows that lie across: then the last axis, along which the
// emitter takes neighbours, is one of rows. No axis is reduced for the emitter.
Tape rows_last(const Tape& tape);
RowPlan plan_rows(const Tape& tape, const TapeStages& stages, const ShaderTarget& target,
                  const Storage& storage);
// Of a tape whose points are taken in eights: registers hold eight values of each instruction that
// is alive.
constexpr std::size_t most_instructions_of_eights = 64;

// `tape` is simplified and ordered.
KernelWork lower_rows(const Tape& tape, const LoweringContext& context);

// Groups of a dispatch of `groups` workgroups, folded over x and y.
std::array<std::uint32_t, 3> folded_groups(std::uint64_t groups, const ShaderTarget& target);
// Estimates of a tape's work, for one dispatch that does all of it.
void estimate(const Tape& tape, const LoweringContext& context, Dispatch& dispatch);

}  // namespace fluxion::vulkan_backend
