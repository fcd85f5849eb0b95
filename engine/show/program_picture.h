// A program (engine/program/program.h) as a diagram: kernels with the ops fused in them, and the
// buffers between them.
#pragma once

#include <string>
#include <vector>

#include "engine/program/program.h"
#include "engine/show/graph_picture.h"

namespace fluxion::show {

// The name of each buffer: of an input or output its label; of a temporary the op that makes it,
// after the layer whose weight it is multiplied with: "matmul", "attn.qkv add".
std::vector<std::string> buffer_names(const Program& program, const PictureLabels& labels);

// Boxes: the kernels in the order they run; a buffer stands before the kernel that reads it first,
// or after the kernel that writes it first. Inputs and outputs have the names and roles of
// `labels`. Kernels and temporaries mix roles, so they have none.
Diagram program_diagram(const Program& program, const PictureLabels& labels = {});

}  // namespace fluxion::show
