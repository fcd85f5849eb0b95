// Runs the `fluxion` program as a shell would.
#pragma once

#include <filesystem>
#include <string>

namespace fluxion::testing {

struct ProgramRun {
  int code = -1;
  std::string out, error;
};

// The program beside the test program, with these arguments (quoted for the shell where need be) in
// the folder `folder`; `before` is shell text that runs first, say a limit to set.
ProgramRun run_program(const std::string& arguments, const std::filesystem::path& folder = {},
                       const std::string& before = {});

std::filesystem::path program_path();

}  // namespace fluxion::testing
