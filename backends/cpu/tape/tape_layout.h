// Chooses how a tape's iteration space is cut into batch, rows and columns.
#pragma once

#include "backends/cpu/tape/blocked_tape.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

// All axes as one line of columns: any run of points is then one block.
AxisGroups line_groups(const Tape& tape);

// For a tape without reduced axes. The columns are the longest run of innermost axes that every
// access steps through alike; values that do not vary along it are computed once per row.
AxisGroups map_groups(const Tape& tape);

// For a tape with reduced axes. Along `columns`: each row of the tape is a row of a block. Along
// `rows`: the kept axes lie innermost in memory and are the columns, the reduced axes the rows.
struct ReductionLayout {
  AxisGroups groups;
  ReduceAlong along = ReduceAlong::columns;
};
ReductionLayout reduction_layout(const Tape& tape);

// The part of a tape that remains when its reductions are known: its narrow instructions over the
// kept axes, with the reductions as TapeCode::result 0, 1, ..
Tape finish_tape(const Tape& tape);

}  // namespace fluxion::cpu_backend
