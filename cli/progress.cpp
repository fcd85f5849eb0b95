#include "cli/progress.h"

#include <algorithm>

namespace fluxion::cli {

namespace {
constexpr std::chrono::duration<double> rewrite_interval(0.1), longest_interval(60);
constexpr double growth = 1.25;
constexpr std::chrono::duration<double> moment(0.2);
}  // namespace

bool ProgressLine::due() const {
  return !shown_ || std::chrono::steady_clock::now() - last_ >=
                        (streams_.terminal ? rewrite_interval : interval_);
}

void ProgressLine::show(const std::string& text) {
  last_ = std::chrono::steady_clock::now();
  if (shown_) interval_ = std::min(interval_ * growth, longest_interval);
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

void CompilingProgress::show(std::size_t done, std::size_t all) {
  const std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (done == 0) start_ = now;
  // What stays on the terminal is the last number.
  const bool ends = done == all && line_.open();
  if (ends || (now - start_ >= moment && line_.due()))
    line_.show("building shaders " + std::to_string(done) + "/" + std::to_string(all));
  if (done == all) line_.finish();
}

std::string bar_text(double fraction, int cells) {
  const auto full = static_cast<std::size_t>(std::clamp(fraction, 0.0, 1.0) * cells + 1e-9),
             all = static_cast<std::size_t>(std::max(cells, 0));
  return "[" + std::string(full, '#') + std::string(all - full, '-') + "]";
}

}  // namespace fluxion::cli
