#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <exception>
#include <new>
#include <string_view>

#include "cli/signals.h"
#include "engine/platform/file.h"
#include "engine/platform/terminal.h"

namespace fluxion::cli {

namespace {

// Set before the handlers are: one gets no argument.
bool on_terminal = false;

constexpr std::string_view text_of(int number) {
  switch (number) {
    case SIGTERM:
      return "fluxion: ended by SIGTERM\n";
    case SIGHUP:
      return "fluxion: ended by SIGHUP, the terminal is gone\n";
    default:
      return "fluxion: interrupted\n";
  }
}

// A pipe that nobody empties must not keep the program.
void say(std::string_view text) {
  pollfd error{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (::poll(&error, 1, 0) != 1 || (error.revents & POLLOUT) == 0) return;
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

extern "C" void end_now(int number) {
  remove_temporary_files();
  if (on_terminal) say("\n");  // below a line of progress
  say(text_of(number));
  ::_exit(128 + number);
}

[[noreturn]] void end_uncaught() {
  remove_temporary_files();
  say("fluxion: ");
  try {
    if (std::current_exception()) throw;
    say("ended without a reason");
  } catch (const std::bad_alloc&) {
    say("out of memory");
  } catch (const std::exception& error) {
    say(error.what());
  } catch (...) {
    say("ended by an unknown exception");
  }
  say("\n");
  ::_exit(1);
}

}  // namespace

void handle_signals() {
  std::set_terminate(end_uncaught);
  // In order, so that each gets the lowest free descriptor: its own. Reading from what can only be
  // written fails, and so does writing to what can only be read.
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(descriptor, F_GETFD) == -1)
      ::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  on_terminal = is_terminal(StandardStream::error);

  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
  struct sigaction action {
  }, before{};
  action.sa_handler = end_now;
  action.sa_flags = SA_RESTART;
  ::sigfillset(&action.sa_mask);
  for (const int number : {SIGINT, SIGTERM, SIGHUP})
    if (::sigaction(number, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
      ::sigaction(number, &action, nullptr);
}

}  // namespace fluxion::cli
