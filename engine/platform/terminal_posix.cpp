#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/platform/terminal.h"

namespace fluxion {

namespace {
int descriptor_of(StandardStream stream) {
  switch (stream) {
    case StandardStream::input:
      return STDIN_FILENO;
    case StandardStream::output:
      return STDOUT_FILENO;
    case StandardStream::error:
      return STDERR_FILENO;
  }
  return STDOUT_FILENO;
}
}  // namespace

bool is_terminal(StandardStream stream) { return ::isatty(descriptor_of(stream)) == 1; }

int terminal_columns(StandardStream stream, int fallback) {
  winsize size{};
  if (::ioctl(descriptor_of(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return fallback;
  return size.ws_col;
}

}  // namespace fluxion
