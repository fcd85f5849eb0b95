// A program (engine/program/program.h) as a diagram: kernels with the ops fused in them, and the
// buffers between them.
#pragma once

#include "engine/program/program.h"
#include "engine/show/graph_picture.h"

namespace fluxion::show {

// Boxes: the kernels in the order they run; a buffer stands before the kernel that reads it first,
// or after the kernel that writes it first. Inputs and outputs have the names and roles of
// `labels`. Kernels and temporaries mix roles, so they have none.
Diagram program_diagram(const Program& program, const PictureLabels& labels = {});

}  // namespace fluxion::show
