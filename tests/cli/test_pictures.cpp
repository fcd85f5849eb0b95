// The pictures of the documentation.
#include <cstdlib>
#include <map>
#include <regex>
#include <set>
#include <sstream>

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

TEST_CASE("every picture is in a page, with the command that draws it below", "[cli][pictures]") {
  const fs::path root = FLUXION_SOURCE_DIR;
  std::map<std::string, std::string> commands;  // by picture
  std::istringstream script(text_of(root / "scripts/pictures.sh"));
  for (std::string word, line; std::getline(script, line);) {
    std::istringstream words(line);
    std::string name, options;
    if (words >> word >> name && word == "draw" && std::getline(words >> std::ws, options))
      commands[name] = options;
  }
  REQUIRE(commands.size() >= 10);
  for (const char* page : {"docs/pictures.md", "docs/autodiff.md"}) {
    const std::string text = text_of(root / page);
    const std::regex image(R"(\(pictures/([^)]*)\.svg\)([^!]{0,200}))");
    std::set<std::string> shown;
    for (std::sregex_iterator found(text.begin(), text.end(), image), end; found != end; ++found) {
      const std::string name = (*found)[1];
      INFO(page << ", " << name);
      shown.insert(name);
      REQUIRE(commands.contains(name));
      CHECK((*found)[2].str().starts_with("\n\n`fluxion graph " + commands[name] + "`\n"));
    }
    INFO(page);
    CHECK(shown.size() == commands.size());
  }
}
