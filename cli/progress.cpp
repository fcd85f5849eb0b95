#include "cli/progress.h"

namespace fluxion::cli {

bool ProgressLine::due() const {
  const std::chrono::milliseconds interval(streams_.terminal ? 100 : 5000);
  return !shown_ || std::chrono::steady_clock::now() - last_ >= interval;
}

void ProgressLine::show(const std::string& text) {
  last_ = std::chrono::steady_clock::now();
  shown_ = true;
  if (streams_.terminal) {
    const auto width = static_cast<std::size_t>(streams_.columns > 1 ? streams_.columns - 1 : 79);
    streams_.error << '\r' << text.substr(0, width) << "\x1b[K" << std::flush;
    open_ = true;
  } else {
    streams_.error << text << std::endl;
  }
}

void ProgressLine::finish() {
  if (open_) streams_.error << std::endl;
  open_ = false;
}

}  // namespace fluxion::cli
