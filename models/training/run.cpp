#include "models/training/run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/platform/machine.h"
#include "engine/readback.h"
#include "models/training/run_files.h"

namespace fluxion {

namespace {

constexpr double mebibyte = 1024.0 * 1024.0;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A step that was submitted: what is known of it already, and its metrics on their way.
struct SubmittedStep {
  std::int64_t step = 0;
  bool first = false;  // of this part of the run
  double learning_rate = 0;
  Readback metrics;
};

SubmittedStep submit_step(Trainer& trainer, std::int64_t first) {
  SubmittedStep submitted;
  submitted.learning_rate = learning_rate_at(trainer.config(), trainer.steps_done());
  const StepMetrics metrics = trainer.step();
  submitted.step = trainer.steps_done();
  submitted.first = submitted.step - first == 1;
  std::vector<Tensor> wanted{metrics.loss, metrics.error, metrics.gradient_norm};
  if (metrics.loss_scale) wanted.push_back(metrics.loss_scale);
  submitted.metrics = Readback(wanted);
  return submitted;
}

// The means over the steps since the last row of the log, but for those whose update was skipped.
class Window {
 public:
  explicit Window(const LogSums& sums) : sums_(sums) {}
  void add(const Readback& metrics) {
    if (metrics.size() == 4) {
      loss_scale_ = metrics.item<float>(3);
      if (!std::isfinite(metrics.item<float>(2))) {
        ++sums_.skipped;
        return;
      }
    }
    sums_.loss += metrics.item<float>(0);
    sums_.error += metrics.item<float>(1);
    sums_.gradient_norm += metrics.item<float>(2);
    ++sums_.steps;
  }
  void report(RunProgress& progress) const {
    const auto steps = static_cast<double>(sums_.steps);
    progress.loss = sums_.loss / steps, progress.error = sums_.error / steps,
    progress.gradient_norm = sums_.gradient_norm / steps;
  }
  void clear() { sums_ = {}; }
  const LogSums& sums() const { return sums_; }
  double loss_scale() const { return loss_scale_; }
  bool empty() const { return sums_.steps == 0; }

 private:
  LogSums sums_;
  double loss_scale_ = 0;
};

void check_finite(const RunProgress& progress) {
  if (std::isfinite(progress.loss) && std::isfinite(progress.error) &&
      std::isfinite(progress.gradient_norm))
    return;
  throw Diverged("train: the loss is no longer finite after step " + std::to_string(progress.step));
}

// Whether an error is beyond what a run comes back from, as it does from noisy targets or a spike.
// That of consistency models begins near 0 and may grow: what counts is the size of data, about 1.
bool diverges(double error, double at_first) {
  constexpr double beyond = 1000;
  return error > beyond * std::max(1.0, at_first);
}

// What may help against divergence, given the data.
std::string advice(const Trainer& trainer) {
  constexpr std::int64_t looked_at = 64;
  constexpr float usual = 100;
  const std::string in_general =
      "; a smaller learning rate, a longer warm-up or gradient clipping may help";
  try {
    const TrainingConfig& config = trainer.config();
    const HostBatch some = trainer.data().batch(std::min(config.batch, looked_at), config.seed, 0);
    float largest = 0;
    for (const float value : some.x) largest = std::max(largest, std::abs(value));
    if (largest > usual)
      return "; the data hold numbers as large as " + rounded_text(largest, 3) +
             ", and networks want some -1 to 1: scale them";
  } catch (const Error&) {
    // That the data can't be read is not why training diverged.
  }
  return in_general;
}

// That gradients need a wider range than f16 has. The weights are whole, since such updates are
// skipped.
[[noreturn]] void throw_range(const Trainer& trainer, const std::string& when, double scale,
                              const std::filesystem::path& folder) {
  throw Error("train: gradients are not finite " + when + ", at any loss scale down to " +
              number_text(scale) +
              "; f16 ends at 65504, and --precision bf16 has the range of f32" +
              (folder.empty()
                   ? ""
                   : ": --init " + (folder / "model-raw.safetensors").string() + " goes on in it") +
              advice(trainer));
}

// At the least scale, nothing is left to try.
void check_scale(const Trainer& trainer, const SubmittedStep& submitted,
                 const std::filesystem::path& folder) {
  const double least = trainer.config().loss_scale.least;
  if (submitted.metrics.size() == 4 && !std::isfinite(submitted.metrics.item<float>(2)) &&
      submitted.metrics.item<float>(3) <= least)
    throw_range(trainer, "after step " + std::to_string(submitted.step), least, folder);
}

double seconds_limit_of(const RunLimits& limits) {
  return limits.minutes > 0 ? limits.minutes * 60 : std::numeric_limits<double>::infinity();
}

// Whether the run begins with a checkpoint that does not lie in its folder.
bool comes_from_elsewhere(const RunOutput& output) {
  if (output.folder.empty() || output.resumed_from.empty()) return false;
  std::error_code missing;
  return !std::filesystem::equivalent(std::filesystem::absolute(output.resumed_from).parent_path(),
                                      output.folder, missing);
}

// What a run that is at its end already leaves in another folder: all but a step.
void write_ended_run(const Trainer& trainer, const RunOutput& output, const RunHooks& hooks,
                     double seconds, RunSummary& summary) {
  RunOutput whole = output;
  whole.since_row = {};  // its last row, between two others, stays in the log
  RunFiles files(whole, trainer, hooks.warn);
  files.describe(summary);
  files.finish(seconds, output.since_row);
  summary.last.step = trainer.steps_done();
  summary.last.seconds = seconds;
  summary.last.fraction = 1;
}

}  // namespace

bool has_ended(const RunLimits& limits, const RunOutput& output, std::int64_t steps_done,
               double seconds) {
  if (limits.steps < 1)
    throw Error("train: steps must be at least 1, got " + std::to_string(limits.steps));
  std::string ended;
  if (steps_done >= limits.steps)
    ended = "has done " + std::to_string(steps_done) + " of --steps " +
            std::to_string(limits.steps) + "; a higher --steps";
  else if (seconds >= seconds_limit_of(limits))
    ended = "has trained " + rounded_text(seconds / 60, 3) + " of --minutes " +
            number_text(limits.minutes) + "; a higher --minutes, or --minutes 0 with --steps,";
  if (ended.empty()) return false;
  if (comes_from_elsewhere(output)) return true;
  throw Error("train: the run " + ended +
              " continues it, and another --out gets the models of its checkpoint");
}

RunSummary run_training(Trainer& trainer, const RunLimits& limits, const RunOutput& output,
                        const RunHooks& hooks, double seconds_before) {
  if (output.log_every < 1)
    throw Error("train: log_every must be at least 1, got " + std::to_string(output.log_every));
  RunSummary summary;
  if (has_ended(limits, output, trainer.steps_done(), seconds_before)) {
    write_ended_run(trainer, output, hooks, seconds_before, summary);
    return summary;
  }
  const double seconds_limit = seconds_limit_of(limits);
  std::optional<RunFiles> files;
  if (!output.folder.empty()) {
    files.emplace(output, trainer, hooks.warn);
    files->describe(summary);
  }
  const std::int64_t first = trainer.steps_done();
  const auto start = std::chrono::steady_clock::now();
  double last_save = 0, last_checkpoint = 0;
  Window window(output.since_row);
  std::optional<double> first_error;  // of the first row
  bool warned = false;                // of an error beyond it
  RunProgress& progress = summary.last;
  progress.steps = limits.steps;

  // Waits for a step, logs it where a row is due, and reports it.
  const auto finish = [&](const SubmittedStep& submitted, bool last, bool saved) {
    check_scale(trainer, submitted, output.folder);
    window.add(submitted.metrics);
    const std::int64_t step = submitted.step;
    const double here = seconds_since(start);
    progress.step = step;
    progress.learning_rate = submitted.learning_rate;
    progress.loss_scale = window.loss_scale(), progress.skipped = window.sums().skipped;
    progress.seconds = seconds_before + here;
    progress.steps_per_second = static_cast<double>(step - first) / here;
    const bool bounded = limits.steps != std::numeric_limits<std::int64_t>::max();
    const double left =
        std::min(bounded ? static_cast<double>(limits.steps - step) / progress.steps_per_second
                         : std::numeric_limits<double>::infinity(),
                 seconds_limit - progress.seconds);
    progress.seconds_left = last ? 0 : left;
    progress.fraction =
        std::min(1.0, std::max(static_cast<double>(step) / static_cast<double>(limits.steps),
                               progress.seconds / seconds_limit));
    // Steps that were all skipped make no row: they go into the next one.
    const bool regular = (step == 1 || step % output.log_every == 0) && !window.empty(),
               row = regular || (last && !window.empty());
    if (!window.empty() && (row || submitted.first || saved)) {
      // Nothing is saved that is not finite.
      window.report(progress);
      check_finite(progress);
    }
    // A run that was stopped may yet come to a scale that fits.
    if (last && !summary.stopped && progress.skipped == step)
      throw_range(trainer, "in any of " + std::to_string(step) + " steps", progress.loss_scale,
                  output.folder);
    if (row) {
      if (!first_error) first_error = progress.error;
      if (hooks.warn && diverges(progress.error, *first_error) && !std::exchange(warned, true))
        hooks.warn("the error at step " + std::to_string(step) + " is " +
                   rounded_text(progress.error, 3) + ", and was " + rounded_text(*first_error, 3) +
                   " at first: training diverges" + advice(trainer));
      // The row of a last step between two others is there until the run goes on.
      if (regular) window.clear();
      progress.peak_memory_bytes = peak_memory_bytes().value_or(0);
      if (files)
        files->log({step, progress.seconds, progress.loss, progress.error, progress.gradient_norm,
                    progress.learning_rate,
                    static_cast<double>(progress.peak_memory_bytes) / mebibyte, progress.loss_scale,
                    progress.skipped});
    }
    if (hooks.report) hooks.report(progress);
  };

  // A device with time of its own always has the next step before it is waited for: a step is
  // finished here once the next one was submitted. One that is done already, or that ends the run
  // or goes into a file, is finished at once.
  std::optional<SubmittedStep> before;
  const auto train_to_the_end = [&] {
    while (true) {
      SubmittedStep now;
      try {
        now = submit_step(trainer, first);
      } catch (...) {
        if (before) finish(*before, false, false);
        throw;
      }
      if (before) finish(*before, false, false);
      before.reset();
      const double here = seconds_since(start);
      summary.stopped = hooks.stop.stop_requested();
      const bool last =
          now.step >= limits.steps || seconds_before + here >= seconds_limit || summary.stopped;
      const bool save = !last && files && here - last_save >= output.save_seconds;
      const bool checkpoint =
          !last && files &&
          ((output.checkpoint_seconds > 0 && here - last_checkpoint >= output.checkpoint_seconds) ||
           (output.checkpoint_steps > 0 && now.step % output.checkpoint_steps == 0));
      if (!(last || save || checkpoint || now.metrics.done())) {
        before = std::move(now);
        continue;
      }
      finish(now, last, save || checkpoint);
      if (last) break;
      if (checkpoint) {
        files->write_checkpoint(progress.seconds, window.sums());
        last_checkpoint = seconds_since(start);
      }
      if (save) {
        files->write_results();
        last_save = seconds_since(start);
      }
    }
    if (files) files->finish(progress.seconds, window.sums());
  };
  try {
    train_to_the_end();
  } catch (Diverged& error) {
    error.add_words(advice(trainer));
    if (files) error.add_words("; " + files->good_checkpoint());
    throw;
  } catch (const std::exception&) {
    if (files && trainer.steps_done() > first) files->rescue(progress.seconds, window.sums());
    throw;
  }
  return summary;
}

}  // namespace fluxion
