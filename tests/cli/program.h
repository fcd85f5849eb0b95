// Runs the `fluxion` program as a shell would.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

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

// The program, started: it works in `folder`, where what it says goes to the files "stdout" and
// "stderr". It is killed at the end if it still runs.
class Process {
 public:
  // `prepare` runs in the new process before the program.
  Process(std::vector<std::string> arguments, const std::filesystem::path& folder,
          const std::function<void()>& prepare = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void signal(int number) const;
  int wait();  // for its end; the status of waitpid
  bool running();
  int status() const { return status_; }

 private:
  pid_t id_ = -1;
  int status_ = 0;
};

// What the program says on its error stream when it refuses.
inline bool is_one_line(const std::string& text) {
  return !text.empty() && text.find('\n') == text.size() - 1;
}

// That the program failed, with one line on its error stream that has this text.
void check_one_line(const ProgramRun& run, const std::string& text);

// Waits until the condition holds, for half a minute.
void wait_for(const std::function<bool()>& condition);

}  // namespace fluxion::testing
