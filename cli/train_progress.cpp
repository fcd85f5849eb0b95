#include <algorithm>
#include <cstdio>
#include <limits>

#include "cli/command.h"
#include "cli/progress.h"
#include "models/training/run.h"

namespace fluxion::cli {

namespace {

std::string text_of(const RunProgress& progress) {
  const bool bounded = progress.steps != std::numeric_limits<std::int64_t>::max();
  const std::string of = bounded ? "/" + std::to_string(progress.steps) : "";
  const std::string memory =
      progress.peak_memory_bytes > 0 ? "  " + bytes_text(progress.peak_memory_bytes) : "";
  char text[256];
  std::snprintf(text, sizeof text, "step %lld%s  loss %.4g  error %.4g  %.1f steps/s%s  %s left",
                static_cast<long long>(progress.step), of.c_str(), progress.loss, progress.error,
                progress.steps_per_second, memory.c_str(),
                clock_text(progress.seconds_left).c_str());
  return text;
}

}  // namespace

void TrainingProgress::show(const RunProgress& progress) {
  if (quiet_ || !(line_.due() || progress.seconds_left == 0)) return;
  const std::string text = text_of(progress);
  char percent[16];
  std::snprintf(percent, sizeof percent, " %3.0f%%  ", 100 * progress.fraction);
  const int room =
      streams_.columns - 1 - static_cast<int>(text.size()) - 9;  // 9: brackets and percentage
  constexpr int smallest = 6, largest = 30;
  line_.show(streams_.terminal && room >= smallest
                 ? bar_text(progress.fraction, std::min(room, largest)) + percent + text
                 : text);
}

void TrainingProgress::warn(const std::string& text) {
  line_.finish();
  streams_.error << "warning    " << printable(text, 1000) << std::endl;
}

}  // namespace fluxion::cli
