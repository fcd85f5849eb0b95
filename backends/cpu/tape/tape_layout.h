// Choosing how a tape's iteration space is cut into rows and columns.
#pragma once

#include "backends/cpu/tape/blocked_tape.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

// All axes as one line of columns: any run of points is then one block.
AxisGroups line_groups(const Tape& tape);

// For a tape without reduced axes: the longest innermost stretch that every access walks alike
// becomes the columns, so that what varies only across it is computed once per row.
AxisGroups map_groups(const Tape& tape);

// For a tape with reduced axes: `columns` if each row of the tape becomes a row of a block, `rows`
// if the kept axes lie innermost in memory and become the columns, with the reduced axes as rows.
struct ReductionLayout {
  AxisGroups groups;
  ReduceAlong along = ReduceAlong::columns;
};
ReductionLayout reduction_layout(const Tape& tape);

// What is left of a tape once its reductions are known: its narrow part, over the kept axes, with
// the reductions as TapeCode::result 0, 1, ..
Tape finish_tape(const Tape& tape);

}  // namespace fluxion::cpu_backend
