#include "tests/cli/program.h"

#include <sys/wait.h>

#include <cstdlib>

#include "tests/files/scratch.h"

namespace fluxion::testing {

std::filesystem::path program_path() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fluxion";
}

ProgramRun run_program(const std::string& arguments, const std::filesystem::path& folder,
                       const std::string& before) {
  const ScratchFolder captured;
  const std::filesystem::path out = captured.path() / "out", error = captured.path() / "error";
  const std::string place = folder.empty() ? captured.path().string() : folder.string();
  const std::string command = "cd '" + place + "'; " + before + " '" + program_path().string() +
                              "' " + arguments + " >'" + out.string() + "' 2>'" + error.string() +
                              "' </dev/null";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text_of(out), text_of(error)};
}

}  // namespace fluxion::testing
