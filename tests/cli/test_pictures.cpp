// The pictures of the documentation.
#include <cstdlib>
#include <set>

#include "tests/catch.h"
#include "tests/cli/program.h"
#include "tests/files/scratch.h"

using namespace fluxion::testing;

namespace {

namespace fs = std::filesystem;

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    names.insert(entry.path().filename().string());
  return names;
}

}  // namespace

TEST_CASE("docs/pictures holds what the program draws", "[cli][graph][pictures]") {
  const fs::path root = FLUXION_SOURCE_DIR, committed = root / "docs/pictures";
  const ScratchFolder drawn;
  const std::string command = "'" + (root / "scripts/pictures.sh").string() + "' '" +
                              program_path().string() + "' '" + drawn.path().string() +
                              "' >/dev/null";
  REQUIRE(std::system(command.c_str()) == 0);
  CHECK(names_in(drawn.path()) == names_in(committed));
  for (const std::string& name : names_in(drawn.path())) {
    INFO("docs/pictures/" << name
                          << " is out of date: run scripts/pictures.sh, and look at the pictures "
                             "before committing them");
    const bool same = text_of(drawn / name) == text_of(committed / name);
    CHECK(same);
  }
}
