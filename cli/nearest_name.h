// What somebody who mistyped a name meant.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace fluxion::cli {

// The first of the names that are nearest to what was written, by letters inserted, removed,
// replaced or exchanged with their neighbours (optimal string alignment); none where that is more
// than a third of the letters. A name that goes on where the text ends is nearest.
std::optional<std::string> nearest_name(const std::string& written,
                                        const std::vector<std::string>& names);

}  // namespace fluxion::cli
