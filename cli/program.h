// The `fluxion` program as a function, so that tests can call it.
#pragma once

#include <memory>
#include <ostream>
#include <vector>

namespace fluxion {

struct Method;
using MethodTable = std::vector<std::shared_ptr<const Method>>;

namespace cli {

// Results go to `out`, progress and errors to `error`.
struct Streams {
  std::ostream& out;
  std::ostream& error;
  bool terminal = false;  // `error` is a terminal: progress is rewritten in place
  int columns = 80;
};

// Exit codes: 0 done; 1 failed, with one line on `error`; 2 the command line was wrong; 128 +
// signal if interrupted (cli/signals.h).
int run(int argc, const char* const* argv, const Streams& streams);

// The same with these training methods instead of those of the library (models/methods/method.h),
// in builds that can train.
int run(int argc, const char* const* argv, const Streams& streams, const MethodTable& methods);

}  // namespace cli
}  // namespace fluxion
