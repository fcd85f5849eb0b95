// A diagram: boxes and edges, drawn as SVG or written as DOT for Graphviz. graph_picture.h and
// program_picture.h turn graphs and programs into diagrams.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/show/layered.h"

namespace fluxion::show {

// The role of a value in a computation with derivatives.
enum class Role : std::uint8_t {
  primal,       // part of the function itself
  coefficient,  // a function of primals that only a derivative needs: 1 - y^2 of tanh
  tangent,      // depends on a tangent
  cotangent,    // depends on a cotangent
};
inline constexpr int role_count = 4;
std::string to_string(Role role);

// The kind of a box, shown as a stripe.
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
  std::string type{};                // of its value
  std::optional<Role> role{};        // none: no role in particular
  Kind kind = Kind::other;
  Form form = Form::plain;
  bool apart = false;  // never folded with others (fold.h)
};

struct Diagram {
  std::string title;
  std::string note;  // a line under the title
  std::vector<Box> boxes;
  std::vector<LayeredEdge> edges;  // from boxes to later ones
  bool columns_by_role = false;
  std::string noun = "node";  // what a plain box is
};

// A layered drawing (layered.h). Readable up to some 150 boxes; thousands are still drawn fast,
// with the longest lines cut to names. Beyond `comfortable_boxes`, fold (fold.h), or recommend
// Graphviz and a viewer that zooms.
inline constexpr std::size_t comfortable_boxes = 300;
inline constexpr double page_width = 1000;  // of a drawing whose labels can be read in a page
std::string to_svg(const Diagram& diagram);
// The width of that drawing, and the height of its boxes.
Point drawn_size(const Diagram& diagram);

// For `dot -Tsvg`. Roles become clusters if the drawing shows them as columns.
std::string to_dot(const Diagram& diagram);

}  // namespace fluxion::show
