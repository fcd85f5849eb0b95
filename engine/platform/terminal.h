// The terminal, if there is one.
#pragma once

namespace fluxion {

enum class StandardStream { input, output, error };

bool is_terminal(StandardStream stream);

// Columns of the terminal behind the stream; `fallback` if it is not a terminal.
int terminal_columns(StandardStream stream, int fallback = 80);

}  // namespace fluxion
