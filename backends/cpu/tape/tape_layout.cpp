#include "backends/cpu/tape/tape_layout.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace fluxion::cpu_backend {

namespace {

// Rows shorter than this are not worth the bookkeeping of a row.
constexpr std::int64_t shortest_row = 64;
// Fewer kept columns than this would leave most of a vector empty.
constexpr std::int64_t fewest_columns = 16;
// Fewer rows, or points, of a batch item than these would be too little for a block.
constexpr std::int64_t fewest_rows = 16, fewest_points = 2048;
// A block of resident rows reduced across holds this many rows at most.
constexpr std::int64_t most_resident_rows = 2048;

std::vector<const Affine*> all_functions(const Tape& tape) {
  std::vector<const Affine*> functions;
  for (const TapeLoad& load : tape.loads) {
    functions.push_back(&load.address);
    for (const LoadGuard& guard : load.guards) functions.push_back(&guard.range.index);
  }
  for (const Affine& index : tape.indices) functions.push_back(&index);
  for (const AffineRange& range : tape.ranges) functions.push_back(&range.index);
  for (const TapeStore& store : tape.stores) functions.push_back(&store.address);
  return functions;
}

// The first of the axes [first, last) from which on every function of the tape walks straight
// through to the end of the range.
int straight_from(const Tape& tape, int first, int last,
                  const std::vector<const Affine*>& functions) {
  int axis = last;
  int inner = -1;  // the innermost axis so far that has more than one point
  std::int64_t inner_points = 1;
  while (axis > first) {
    const std::int64_t extent = tape.extents[static_cast<std::size_t>(axis - 1)];
    if (extent != 1 && inner >= 0) {
      const bool merges =
          std::all_of(functions.begin(), functions.end(), [&](const Affine* function) {
            return coefficient(*function, axis - 1) == coefficient(*function, inner) * inner_points;
          });
      if (!merges) return axis;
    }
    if (extent != 1 && inner < 0) inner = axis - 1;
    if (inner >= 0) inner_points *= extent;
    --axis;
  }
  return axis;
}

std::vector<int> range_of(int first, int last) {
  std::vector<int> axes(static_cast<std::size_t>(std::max(last - first, 0)));
  std::iota(axes.begin(), axes.end(), first);
  return axes;
}

// The axes [0, last) as rows; as batch and rows where some operand, say one that is broadcast along
// the inner ones, does not walk straight through all of them: a block of rows within one batch item
// reads it in place, one that crosses items a row at a time.
void set_rows(const Tape& tape, int last, const std::vector<const Affine*>& functions,
              AxisGroups& groups) {
  const int first = straight_from(tape, 0, last, functions);
  const std::int64_t rows = points(tape.extents, range_of(first, last)),
                     columns = points(tape.extents,
                                      range_of(last, static_cast<int>(tape.extents.size())));
  const bool splits = rows >= fewest_rows && rows * columns >= fewest_points;
  groups.batch = range_of(0, splits ? first : 0);
  groups.rows = range_of(splits ? first : 0, last);
}

// Whether most of what the row reads lies contiguous in memory along a kept axis. A load counts as
// much as it has elements: statistics of the row, few but often many loads, don't decide.
bool kept_axes_are_innermost(const Tape& tape, int kept) {
  double balance = 0;
  for (const TapeLoad& load : tape.loads) {
    std::int64_t least = 0;
    bool least_is_kept = false, reduced = false;
    double elements = 1;
    for (int axis = 0; axis < static_cast<int>(tape.extents.size()); ++axis) {
      const std::int64_t extent = tape.extents[static_cast<std::size_t>(axis)];
      const std::int64_t step = std::abs(coefficient(load.address, axis));
      if (step == 0 || extent == 1) continue;
      elements *= static_cast<double>(extent);
      reduced = reduced || axis >= kept;
      if (least == 0 || step < least) {
        least = step;
        least_is_kept = axis < kept;
      }
    }
    if (reduced) balance += least_is_kept ? elements : -elements;
  }
  return balance > 0;
}

}  // namespace

AxisGroups line_groups(const Tape& tape) {
  AxisGroups groups;
  groups.columns = range_of(0, static_cast<int>(tape.extents.size()));
  return groups;
}

AxisGroups map_groups(const Tape& tape) {
  const int axes = static_cast<int>(tape.extents.size());
  const std::vector<const Affine*> functions = all_functions(tape);
  int first = straight_from(tape, 0, axes, functions);
  while (first > 0 && points(tape.extents, range_of(first, axes)) < shortest_row) --first;
  AxisGroups groups;
  set_rows(tape, first, functions, groups);
  groups.columns = range_of(first, axes);
  return groups;
}

ReductionLayout reduction_layout(const Tape& tape) {
  const int axes = static_cast<int>(tape.extents.size()), kept = axes - tape.reduced_axes;
  ReductionLayout layout;
  const std::vector<const Affine*> functions = all_functions(tape);
  const int first = straight_from(tape, 0, kept, functions);
  if (kept_axes_are_innermost(tape, kept) &&
      points(tape.extents, range_of(first, kept)) >= fewest_columns &&
      (tape.streaming || points(tape.extents, range_of(kept, axes)) <= most_resident_rows)) {
    layout.along = ReduceAlong::rows;
    layout.groups.batch = range_of(0, first);
    layout.groups.columns = range_of(first, kept);
    layout.groups.rows = range_of(kept, axes);
  } else {
    set_rows(tape, kept, functions, layout.groups);
    layout.groups.columns = range_of(kept, axes);
  }
  return layout;
}

Tape finish_tape(const Tape& tape) {
  const std::size_t kept = tape.extents.size() - static_cast<std::size_t>(tape.reduced_axes);
  Tape finish;
  finish.extents.assign(tape.extents.begin(),
                        tape.extents.begin() + static_cast<std::ptrdiff_t>(kept));
  const auto keep = [kept](Affine& affine) { affine.coefficients.resize(kept, 0); };
  finish.loads = tape.loads;
  finish.indices = tape.indices;
  finish.ranges = tape.ranges;
  for (TapeLoad& load : finish.loads) {
    keep(load.address);
    for (LoadGuard& guard : load.guards) keep(guard.range.index);
  }
  for (Affine& index : finish.indices) keep(index);
  for (AffineRange& range : finish.ranges) keep(range.index);

  std::vector<std::int32_t> renumbered(tape.instructions.size(), -1);
  std::int32_t reductions = 0;
  for (std::size_t i = 0; i < tape.instructions.size(); ++i) {
    TapeInstruction instruction = tape.instructions[i];
    if (instruction.code == TapeCode::reduce) {
      instruction.code = TapeCode::result;
      instruction.argument = reductions++;
      instruction.operands = {-1, -1, -1};
    } else if (!instruction.narrow) {
      continue;
    }
    for (std::int32_t& operand : instruction.operands)
      if (operand >= 0) operand = renumbered[static_cast<std::size_t>(operand)];
    instruction.narrow = false;
    renumbered[i] = static_cast<std::int32_t>(finish.instructions.size());
    finish.instructions.push_back(instruction);
  }
  for (TapeStore store : tape.stores) {
    if (!tape.instructions[static_cast<std::size_t>(store.value)].narrow) continue;
    store.value = renumbered[static_cast<std::size_t>(store.value)];
    keep(store.address);
    finish.stores.push_back(store);
  }
  return finish;
}

}  // namespace fluxion::cpu_backend
