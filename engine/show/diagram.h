// Boxes and what leads from one to another, drawn as SVG or written as DOT for Graphviz. Graphs and
// plans become diagrams first (graph_picture.h, program_picture.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/show/layered.h"

namespace fluxion::show {

// The part that a value plays in a computation with derivatives.
enum class Role : std::uint8_t {
  primal,       // part of the function itself
  coefficient,  // computed from the primal part alone, but needed only by a derivative: 1 - y^2 of
                // tanh
  tangent,      // depends on a tangent
  cotangent,    // depends on a cotangent
};
inline constexpr int role_count = 4;
std::string to_string(Role role);

// Stripes tell boxes of different kinds apart.
enum class Kind : std::uint8_t {
  leaf,
  elementwise,
  movement,
  reduction,
  contraction,
  index,
  random,
  fused,
  other
};

enum class Form : std::uint8_t {
  plain,
  source,  // comes from outside: an argument
  result,  // goes outside
  memory,  // holds a value between two boxes
};

struct Box {
  std::vector<std::string> lines{};  // the first in bold
  std::string name{};                // short, in small print: "%12"
  std::string detail{};              // shown where the reader points at the box
  std::optional<Role> role{};        // none: of no part in particular
  Kind kind = Kind::other;
  Form form = Form::plain;
};

struct Diagram {
  std::string title;
  std::string note;  // a line under the title
  std::vector<Box> boxes;
  std::vector<LayeredEdge> edges;  // from boxes to later ones
  bool columns_by_role = false;
};

// A layered drawing (layered.h), readable up to some 150 boxes. With thousands it is still drawn
// fast, the longest lines as names only, but Graphviz and a viewer that zooms serve better:
// `comfortable_boxes` is where to say so.
inline constexpr std::size_t comfortable_boxes = 300;
std::string to_svg(const Diagram& diagram);

// For `dot -Tsvg`; roles are clusters if they are columns in the drawing.
std::string to_dot(const Diagram& diagram);

}  // namespace fluxion::show
