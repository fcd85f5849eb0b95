#include <iostream>

#include "cli/program.h"
#include "cli/signals.h"
#include "engine/platform/file.h"
#include "engine/platform/terminal.h"

int main(int argc, char** argv) {
  using namespace fluxion;
  cli::handle_signals();
  const MappedFileGuard mapped_files;
  return cli::run(argc, argv,
                  {std::cout, std::cerr, is_terminal(StandardStream::error),
                   terminal_columns(StandardStream::error)});
}
