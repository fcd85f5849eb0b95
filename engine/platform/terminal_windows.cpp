#include "engine/platform/system_windows.h"
#include "engine/platform/terminal.h"

namespace fluxion {

namespace {
HANDLE handle_of(StandardStream stream) {
  switch (stream) {
    case StandardStream::input:
      return ::GetStdHandle(STD_INPUT_HANDLE);
    case StandardStream::output:
      return ::GetStdHandle(STD_OUTPUT_HANDLE);
    case StandardStream::error:
      return ::GetStdHandle(STD_ERROR_HANDLE);
  }
  return ::GetStdHandle(STD_OUTPUT_HANDLE);
}
}  // namespace

bool is_terminal(StandardStream stream) {
  DWORD mode = 0;
  return ::GetConsoleMode(handle_of(stream), &mode);
}

int terminal_columns(StandardStream stream, int fallback) {
  CONSOLE_SCREEN_BUFFER_INFO info{};
  if (!::GetConsoleScreenBufferInfo(handle_of(stream), &info)) return fallback;
  const int columns = info.srWindow.Right - info.srWindow.Left + 1;
  return columns > 0 ? columns : fallback;
}

}  // namespace fluxion
