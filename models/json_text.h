// JSON from files that nobody vouches for.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace fluxion {

// The value that a text stands for, with // and /* */ comments if allowed. Throws FormatError
// "`where`: is not JSON: .." or, since what takes a value apart goes as deep as the value does,
// "`where`: .. nested more than 16 deep".
nlohmann::json parse_json(std::string_view text, const std::string& where, bool comments = false);

}  // namespace fluxion
