// Runs the `fluxion` program as a shell would.
#pragma once

#include <filesystem>
#include <string>

namespace fluxion::testing {

struct ProgramRun {
  int code = -1;
  std::string out, error;
};

// The program beside the test program, with these arguments (quoted for the shell where need be) in the folder `folder`.
ProgramRun run_program(const std::string& arguments, const std::filesystem::path& folder = {});

}  // namespace fluxion::testing
