#include <iostream>

#include "cli/program.h"
#include "engine/platform/terminal.h"

int main(int argc, char** argv) {
  using namespace fluxion;
  return cli::run(argc, argv,
                  {std::cout, std::cerr, is_terminal(StandardStream::error),
                   terminal_columns(StandardStream::error)});
}
