// What somebody who mistyped a name meant.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace fluxion::cli {

// The name that other programs call so ("--epochs" for "--steps") or whose letters begin the words
// ("--learning-rate" for "--lr"). Else the first of the names that are nearest to what was written,
// by letters inserted, removed, replaced or exchanged with their neighbours (optimal string
// alignment), where that is no more than one and a third of the letters; a name that goes on where
// the text ends is nearest. Where more than two letters differ, the longest name that the words
// begin or end with comes before ("--batch" of "--batch-size"). An underscore is a dash.
std::optional<std::string> nearest_name(const std::string& written,
                                        const std::vector<std::string>& names);

// " (did you mean --steps?)", where there is such a name.
std::string suggestion(const std::string& written, const std::vector<std::string>& names);

}  // namespace fluxion::cli
