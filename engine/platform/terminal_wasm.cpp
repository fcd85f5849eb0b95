#include <unistd.h>

#include "engine/platform/terminal.h"

namespace fluxion {

bool is_terminal(StandardStream stream) {
  switch (stream) {
    case StandardStream::input:
      return ::isatty(STDIN_FILENO) == 1;
    case StandardStream::output:
      return ::isatty(STDOUT_FILENO) == 1;
    case StandardStream::error:
      return ::isatty(STDERR_FILENO) == 1;
  }
  return false;
}

int terminal_columns(StandardStream, int fallback) { return fallback; }

}  // namespace fluxion
