#include "tests/cli/program.h"

#include <sys/wait.h>

#include <cstdlib>

#include "tests/files/scratch.h"

namespace fluxion::testing {

ProgramRun run_program(const std::string& arguments, const std::filesystem::path& folder) {
  const ScratchFolder captured;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fluxion";
  const std::filesystem::path out = captured.path() / "out", error = captured.path() / "error";
  const std::string place = folder.empty() ? captured.path().string() : folder.string();
  const std::string command =
      "cd '" + place + "'; '" + program.string() + "' " + arguments + " >'" + out.string() + "' 2>'" + error.string() + "' </dev/null";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text_of(out), text_of(error)};
}

}  // namespace fluxion::testing
