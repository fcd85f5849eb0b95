// docs/coverage.md, whose two parts are written by two tests in two programs: the table of ops
// (test_coverage.cpp), then derivatives at special points (test_special_points.cpp). Each checks
// its own part. Where a change is meant, set FLUXION_UPDATE_PINNED=1, run the test once, and look
// at the difference.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace fluxion::testing {

class CoveragePage {
 public:
  enum Part { ops, special_points };

  // The committed text of a part; that of `written` first, if the page is to be updated.
  static std::string committed(Part part, const std::string& written) {
    const std::filesystem::path page =
        std::filesystem::path(FLUXION_SOURCE_DIR) / "docs/coverage.md";
    std::ifstream file(page);
    std::stringstream read;
    read << file.rdbuf();
    const std::string whole = read.str();
    const std::size_t begin = std::min(whole.find(heading), whole.size());
    std::string parts[] = {whole.substr(0, begin), whole.substr(begin)};
    if (std::getenv("FLUXION_UPDATE_PINNED")) {
      parts[part] = written;
      std::ofstream(page) << parts[ops] << parts[special_points];
    }
    return parts[part];
  }

  // Where the second part begins.
  static constexpr const char* heading = "\n## Derivatives at special points\n";
};

}  // namespace fluxion::testing
