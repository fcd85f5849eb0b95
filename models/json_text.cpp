#include "models/json_text.h"

#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace fluxion {

nlohmann::json parse_json(std::string_view text, const std::string& where, bool comments) {
  using nlohmann::json;
  constexpr int deepest = 16;
  const auto check_depth = [&](int depth, json::parse_event_t, json&) {
    if (depth > deepest)
      throw FormatError(where + ": JSON that is nested more than " + std::to_string(deepest) +
                        " deep");
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), check_depth, true, comments);
  } catch (const json::exception& error) {
    throw FormatError(where + ": is not JSON: " + error.what());
  }
}

}  // namespace fluxion
