// The colours of diagrams: roles as paper and border, kinds as stripes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/show/diagram.h"

namespace fluxion::show {

struct RoleColours {
  std::string_view name, paper, border, dark_paper, dark_border;
};
const RoleColours& colours(const std::optional<Role>& role);  // none: neutral

struct KindColour {
  std::string_view name, colour;
};
const KindColour& colour(Kind kind);

// Style rules: boxes of a role are of class b-<role>, lines l-<role>, arrow heads h-<role>, stripes
// s-<kind>.
std::string palette_style();
std::string dark_palette_style();

}  // namespace fluxion::show
