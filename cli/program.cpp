#include "cli/program.h"

#include <algorithm>
#include <new>
#include <optional>
#include <stdexcept>
#include <vector>

#include "cli/command.h"
#include "engine/error.h"
#if FLUXION_WITH_AUTOGRAD
#include "models/methods/method.h"
#endif

namespace fluxion::cli {

namespace {

constexpr const char* description =
    "fluxion - generative flows: train them, sample them, look into them.\n"
    "A model trained with MeanFlow draws a sample with one evaluation of its network.\n";

constexpr const char* footer =
#if FLUXION_WITH_AUTOGRAD
    "Examples:\n"
    "  fluxion train --data glyphs --minutes 5 --out out/digits\n"
    "  fluxion train --data 8gaussians --steps 3000 --out out/points\n"
#else
    "This build samples models and can't train them.\n\n"
    "Examples:\n"
#endif
    "  fluxion sample --model out/digits/model.safetensors --count 100 --out grid.png\n"
    "  fluxion inspect out/digits/model.safetensors\n"
    "\n"
    "`fluxion COMMAND --help` tells all options of a command.";

// A message as one line.
std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

int run_command(int argc, const char* const* argv, const Streams& streams,
                [[maybe_unused]] const MethodTable& methods) {
  CommandLine program({.name = "fluxion",
                       .description = description,
                       .footer = footer,
                       .version = "fluxion " FLUXION_VERSION,
                       .columns = streams.columns});
  std::vector<Command> commands;
#if FLUXION_WITH_AUTOGRAD
  commands.push_back(add_train(program, streams, methods));
#endif
  commands.push_back(add_sample(program, streams));
  commands.push_back(add_eval(program, streams));
  commands.push_back(add_inspect(program, streams));
  commands.push_back(add_import(program, streams));
  commands.push_back(add_export(program, streams));
  commands.push_back(add_check(program, streams));
#if FLUXION_WITH_AUTOGRAD
  commands.push_back(add_bench(program, streams));
  commands.push_back(add_graph(program, streams));
  commands.push_back(add_zoo(program, streams, methods));
#endif
  commands.push_back(add_devices(program, streams));
  commands.push_back(add_completion(program, streams));
  if (const std::optional<int> done = program.parse(argc, argv, streams)) return *done;
  for (const Command& command : commands)
    if (command.parser.chosen()) return command.run();
  return 0;
}

// The exit code of what `command` returns or throws. Where memory has run out, saying so must not
// take any.
template <class Body>
int reported(const Body& command, const Streams& streams) {
  try {
    try {
      return command();
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::length_error&) {
      throw std::bad_alloc();  // more than memory could ever hold
    } catch (const std::exception& error) {
      const std::string text =
          printable(one_line(error.what()), 2000);  // before half a line is out
      streams.error << "fluxion: " << text << "\n";
    }
  } catch (const std::bad_alloc&) {
    streams.error << "fluxion: out of memory\n";
  }
  return 1;
}

}  // namespace

int run(int argc, const char* const* argv, const Streams& streams) {
#if FLUXION_WITH_AUTOGRAD
  return run(argc, argv, streams, built_in_methods());
#else
  return run(argc, argv, streams, {});
#endif
}

int run(int argc, const char* const* argv, const Streams& streams, const MethodTable& methods) {
  const int code = reported([&] { return run_command(argc, argv, streams, methods); }, streams);
  if (streams.out.flush()) return code;
  streams.error << "fluxion: the result can't be written to standard output: is the disk full, or "
                   "the output closed?\n";
  return code == 0 ? 1 : code;
}

}  // namespace fluxion::cli
