#include "models/training/run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

#include "engine/error.h"
#include "engine/platform/machine.h"
#include "models/training/run_files.h"

namespace fluxion {

namespace {

constexpr double mebibyte = 1024.0 * 1024.0;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The steps since the last row of the log. Their metrics stay on the device until then.
class Window {
 public:
  void add(StepMetrics metrics) { metrics_.push_back(std::move(metrics)); }
  // The means so far.
  void report(RunProgress& progress) const {
    double loss = 0, error = 0, norm = 0;
    for (const StepMetrics& metrics : metrics_) {
      loss += metrics.loss.item<float>();
      error += metrics.error.item<float>();
      norm += metrics.gradient_norm.item<float>();
    }
    const double count = static_cast<double>(metrics_.size());
    progress.loss = loss / count, progress.error = error / count,
    progress.gradient_norm = norm / count;
  }
  bool empty() const { return metrics_.empty(); }
  void clear() { metrics_.clear(); }

 private:
  std::vector<StepMetrics> metrics_;
};

void check_finite(const RunProgress& progress) {
  if (std::isfinite(progress.loss) && std::isfinite(progress.gradient_norm)) return;
  throw Error("train: the loss is no longer finite after step " + std::to_string(progress.step) +
              "; a smaller learning rate, a longer warm-up or gradient clipping may help");
}

void check_limits(const Trainer& trainer, const RunLimits& limits, double seconds_before,
                  double seconds_limit) {
  if (limits.steps < 1)
    throw Error("train: steps must be at least 1, got " + std::to_string(limits.steps));
  const std::int64_t done = trainer.steps_done();
  if (done >= limits.steps)
    throw Error("train: the run has done " + std::to_string(done) + " steps of " +
                std::to_string(limits.steps) + " already; a higher limit of steps goes on");
  if (seconds_before >= seconds_limit)
    throw Error("train: the run has lasted " +
                std::to_string(static_cast<std::int64_t>(seconds_before / 60)) +
                " minutes already; a higher limit of minutes goes on");
}

}  // namespace

RunSummary run_training(Trainer& trainer, const RunLimits& limits, const RunOutput& output,
                        const RunHooks& hooks, double seconds_before) {
  const double seconds_limit =
      limits.minutes > 0 ? limits.minutes * 60 : std::numeric_limits<double>::infinity();
  check_limits(trainer, limits, seconds_before, seconds_limit);
  if (output.log_every < 1)
    throw Error("train: log_every must be at least 1, got " + std::to_string(output.log_every));

  RunSummary summary;
  std::optional<RunFiles> files;
  if (!output.folder.empty()) {
    files.emplace(output, trainer, hooks.warn);
    files->describe(summary);
  }
  const std::int64_t first = trainer.steps_done();
  const auto start = std::chrono::steady_clock::now();
  double last_save = 0, last_checkpoint = 0;
  Window window;
  RunProgress& progress = summary.last;
  progress.steps = limits.steps;

  while (true) {
    progress.learning_rate = learning_rate_at(trainer.config().schedule, trainer.steps_done());
    window.add(trainer.step());
    const std::int64_t step = trainer.steps_done(), done = step - first;
    const double here = seconds_since(start);
    progress.step = step;
    progress.seconds = seconds_before + here;
    summary.stopped = hooks.stop.stop_requested();
    const bool last = step >= limits.steps || progress.seconds >= seconds_limit || summary.stopped;
    progress.steps_per_second = static_cast<double>(done) / here;
    const double left =
        std::min(static_cast<double>(limits.steps - step) / progress.steps_per_second,
                 seconds_limit - progress.seconds);
    progress.seconds_left = last ? 0 : left;
    progress.fraction =
        std::min(1.0, std::max(static_cast<double>(step) / static_cast<double>(limits.steps),
                               progress.seconds / seconds_limit));
    const bool save = !last && files && here - last_save >= output.save_seconds;
    const bool checkpoint =
        !last && files &&
        ((output.checkpoint_seconds > 0 && here - last_checkpoint >= output.checkpoint_seconds) ||
         (output.checkpoint_steps > 0 && step % output.checkpoint_steps == 0));
    if (step == 1 || done == 1 || step % output.log_every == 0 || last || save || checkpoint) {
      // Nothing is saved that is not finite.
      window.report(progress);
      check_finite(progress);
    }
    if (step == 1 || step % output.log_every == 0 || last) {
      window.clear();
      progress.peak_memory_bytes = peak_memory_bytes().value_or(0);
      if (files)
        files->log({step, progress.seconds, progress.loss, progress.error, progress.gradient_norm,
                    progress.learning_rate,
                    static_cast<double>(progress.peak_memory_bytes) / mebibyte});
    }
    if (hooks.report) hooks.report(progress);
    if (last) break;
    if (checkpoint) {
      files->write_checkpoint(progress.seconds);
      last_checkpoint = seconds_since(start);
    }
    if (save) {
      files->write_results();
      last_save = seconds_since(start);
    }
  }
  if (files) files->finish(progress.seconds);
  return summary;
}

}  // namespace fluxion
