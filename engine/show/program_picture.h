// A program (engine/program/program.h), which is what a plan comes to, as a diagram: kernels with
// the ops that are fused in them, and the buffers between them.
#pragma once

#include "engine/program/program.h"
#include "engine/show/graph_picture.h"

namespace fluxion::show {

// Boxes are the kernels in the order they run, with the buffers that each reads first before it and
// those it writes first behind it. Inputs and outputs have the names and roles of `labels`; kernels
// and temporaries, which mix roles, have none.
Diagram program_diagram(const Program& program, const PictureLabels& labels = {});

}  // namespace fluxion::show
