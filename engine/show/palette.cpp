#include "engine/show/palette.h"

#include <array>

namespace fluxion::show {

namespace {

constexpr std::array<RoleColours, role_count + 1> role_colours = {{
    {"primal", "#eef3fb", "#7492c6", "#1c2637", "#5f82bd"},
    {"coefficient", "#f4f1f8", "#a294bd", "#262231", "#7d6f9c"},
    {"tangent", "#e8f6ed", "#4c9e69", "#16291e", "#4c9e69"},
    {"cotangent", "#fdf0e4", "#cf8744", "#33241a", "#c07f42"},
    {"neutral", "#f6f7f9", "#8d97a8", "#21252e", "#7d8798"},
}};

constexpr std::array<KindColour, 9> kinds = {{
    {"leaf", "#8b94a5"},
    {"elementwise", "#3d7dd0"},
    {"movement", "#b9c0cc"},
    {"reduction", "#8c58bf"},
    {"contraction", "#cf433d"},
    {"index", "#1d9791"},
    {"random", "#c59f17"},
    {"fused", "#d6539a"},
    {"other", "#5c6675"},
}};

std::string role_rules(const RoleColours& role, bool dark) {
  const std::string name(role.name), paper(dark ? role.dark_paper : role.paper),
      border(dark ? role.dark_border : role.border);
  return "  .b-" + name + " { fill: " + paper + "; stroke: " + border + " } .l-" + name +
         " { stroke: " + border + " } .h-" + name + " { fill: " + border + " }\n";
}

}  // namespace

const RoleColours& colours(const std::optional<Role>& role) {
  return role ? role_colours[static_cast<std::size_t>(*role)] : role_colours[role_count];
}
const KindColour& colour(Kind kind) { return kinds[static_cast<std::size_t>(kind)]; }

std::string palette_style() {
  std::string style;
  for (const RoleColours& role : role_colours) style += role_rules(role, false);
  for (const KindColour& kind : kinds)
    style += "  .s-" + std::string(kind.name) + " { fill: " + std::string(kind.colour) + " }\n";
  return style;
}

std::string dark_palette_style() {
  std::string style;
  for (const RoleColours& role : role_colours) style += role_rules(role, true);
  return style;
}

}  // namespace fluxion::show
