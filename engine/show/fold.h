// Folding: boxes of a diagram drawn as one, so that a large graph can be read in a page. No box is
// dropped: a folded box says how many it holds and the types that enter and leave it, and lists
// them where the reader points at it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/show/diagram.h"

namespace fluxion::show {

enum class Fold : std::uint8_t {
  none,
  ops,     // an op together with the ops whose only use it is; in a plan, a kernel with its weights
  layers,  // all that stands between the parameters of one layer and those of the next, by role
  blocks,  // the same for blocks.0 instead of blocks.0.attn.qkv
};

struct Folded {
  Diagram diagram;
  std::vector<std::int32_t> box;  // of each box of the original, the box that holds it
};

// Layers are known by the names of arguments: blocks.0.attn.qkv.weight belongs to layer
// blocks.0.attn.qkv. What uses no parameters goes with the layer before. Without such names,
// `layers` and `blocks` do what `ops` does. Arguments and outputs that belong to no layer stay
// apart, as do stop_gradients of tangents. Deterministic; edges between folded boxes are those of
// their members, so they form no cycle.
Folded folded(const Diagram& diagram, Fold fold);

// The least folding with which the drawing can be read in a page, or the one that exceeds a page
// least.
Fold fold_for_page(const Diagram& diagram);

}  // namespace fluxion::show
