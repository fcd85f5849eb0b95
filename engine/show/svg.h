// The common frame of our SVG files, in light and dark.
#pragma once

#include <string>
#include <string_view>

#include "engine/show/layered.h"
#include "engine/show/markup.h"

namespace fluxion::show {

// A whole file: `body` on paper of this size. `light` and `dark` are style rules in addition to the
// shared ones (.paper, text, .title, .label). A viewer without colour schemes shows the light ones.
std::string svg_document(double width, double height, std::string_view light, std::string_view dark,
                         std::string_view body);

// <text class=".." x=".." y="..">..</text>, with more attributes where given.
std::string svg_text(double x, double y, std::string_view text, std::string_view css_class = {},
                     std::string_view attributes = {});
// <rect class=".." ../>, corners rounded by `radius`.
std::string svg_rect(double x, double y, double width, double height, std::string_view css_class,
                     double radius = 0);
// A line of a layered drawing: <path class=".." ../>.
std::string svg_path(const LayeredLine& line, std::string_view css_class);
// The head of an arrow that points down to `tip`.
std::string svg_arrow(Point tip, std::string_view css_class);

}  // namespace fluxion::show
