// Configurations that are built in: settings for --preset NAME.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace fluxion::cli {

// The settings of a preset, for fill_settings. Throws Error listing the names.
nlohmann::json preset_settings(const std::string& name);

// "name  what it is for", a line each.
std::string preset_list();

// "digits, mnist, .."
std::string preset_names();

}  // namespace fluxion::cli
