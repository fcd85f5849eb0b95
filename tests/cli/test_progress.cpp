// The line that says how far a driver is with its shaders.
#include <chrono>
#include <sstream>
#include <thread>

#include "cli/progress.h"
#include "tests/catch.h"

using namespace fluxion::cli;

namespace {

constexpr std::chrono::milliseconds longer_than_a_moment{250};

}  // namespace

TEST_CASE("the count of shaders that stays on a terminal is the last one", "[cli][progress]") {
  std::ostringstream out, error;
  const Streams streams{out, error, true};
  CompilingProgress progress(streams);
  progress.show(0, 40);
  progress.show(1, 40);
  std::this_thread::sleep_for(longer_than_a_moment);
  for (std::size_t done = 2; done <= 40; ++done) progress.show(done, 40);
  const std::string text = error.str();
  CHECK_THAT(text, has_text("building shaders 2/40"));
  const std::string last = text.substr(text.rfind('\r'));
  CHECK(last == "\rbuilding shaders 40/40\x1b[K\n");
}
