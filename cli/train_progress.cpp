#include <algorithm>
#include <cmath>
#include <limits>

#include "cli/command.h"
#include "cli/progress.h"
#include "engine/number_text.h"
#include "models/training/run.h"

namespace fluxion::cli {

namespace {

std::string text_of(const RunProgress& progress) {
  const bool bounded = progress.steps != std::numeric_limits<std::int64_t>::max();
  const std::string of = bounded ? "/" + std::to_string(progress.steps) : "";
  const std::string memory =
      progress.peak_memory_bytes > 0 ? "  " + bytes_text(progress.peak_memory_bytes) : "";
  const std::string means = std::isnan(progress.loss)
                                ? ""  // no update yet that was not skipped
                                : "loss " + rounded_text(progress.loss, 4) + "  error " +
                                      rounded_text(progress.error, 4) + "  ";
  return "step " + std::to_string(progress.step) + of + "  " + means +
         (progress.loss_scale > 0 ? "scale " + rounded_text(progress.loss_scale, 8) + "  " : "") +
         fixed_text(progress.steps_per_second, 1) + " steps/s" + memory +
         // The last line of a run that was stopped is of no step that is left.
         ((progress.seconds_left == 0 && progress.fraction < 1) ||
                  !std::isfinite(progress.seconds_left)
              ? ""
              : "  " + clock_text(progress.seconds_left) + " left");
}

}  // namespace

// Once it is known how long a step takes: says so of a run that takes days, and what would not.
void TrainingProgress::estimate(const RunProgress& progress) {
  constexpr int warm = 3;  // steps, the first of which do more
  constexpr double hour = 3600, long_run = 12 * hour, day = 24 * hour;
  if (++steps_seen_ != warm || progress.seconds_left < long_run ||
      !std::isfinite(progress.seconds_left))
    return;
  const double left = progress.seconds_left;
  warn("the steps left take about " +
       (left < 2 * day ? counted(std::llround(left / hour), "hour")
                       : counted(std::llround(left / day), "day")) +
       " here; --minutes or fewer --steps end earlier, as Ctrl-C does, which saves; a smaller "
       "--batch, --width or --depth makes each step faster");
}

void TrainingProgress::show(const RunProgress& progress) {
  if (!quiet_) estimate(progress);
  if (quiet_ || !(line_.due() || progress.seconds_left == 0)) return;
  const std::string text = text_of(progress);
  std::string percent = fixed_text(100 * progress.fraction, 0) + "%  ";
  percent.insert(0, 7 - std::min<std::size_t>(percent.size(), 6), ' ');
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
