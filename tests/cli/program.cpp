#include "tests/cli/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>

#include "tests/catch.h"
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

void check_one_line(const ProgramRun& run, const std::string& text) {
  INFO(run.error);
  CHECK(run.code == 1);
  CHECK(is_one_line(run.error));
  CHECK_THAT(run.error, has_text(text));
}

Process::Process(std::vector<std::string> arguments, const std::filesystem::path& folder,
                 const std::function<void()>& prepare) {
  arguments.insert(arguments.begin(), program_path().string());
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  const std::string out = (folder / "stdout").string(), error = (folder / "stderr").string();
  // A signal that arrives before the program is there waits for it.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  id_ = ::fork();
  if (id_ != 0) ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  REQUIRE(id_ >= 0);
  if (id_ != 0) return;
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, SIG_DFL);
  constexpr int append = O_WRONLY | O_CREAT | O_APPEND;
  const int null = ::open("/dev/null", O_RDONLY), says = ::open(out.c_str(), append, 0666),
            warns = ::open(error.c_str(), append, 0666);
  if (::chdir(folder.c_str()) != 0) ::_exit(126);
  ::dup2(null, STDIN_FILENO), ::dup2(says, STDOUT_FILENO), ::dup2(warns, STDERR_FILENO);
  for (const int descriptor : {null, says, warns}) ::close(descriptor);
  if (prepare) prepare();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::execv(pointers[0], pointers.data());
  ::_exit(127);
}

Process::~Process() {
  if (id_ > 0) ::kill(id_, SIGKILL), wait();
}

void Process::signal(int number) const {
  if (id_ > 0) ::kill(id_, number);
}

int Process::wait() {
  if (id_ > 0) ::waitpid(std::exchange(id_, -1), &status_, 0);
  return status_;
}

bool Process::running() {
  if (id_ < 0) return false;
  if (::waitpid(id_, &status_, WNOHANG) == 0) return true;
  id_ = -1;
  return false;
}

void wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 3000 && !condition(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  REQUIRE(condition());
}

}  // namespace fluxion::testing
