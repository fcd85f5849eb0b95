#include "models/training/run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>

#include "engine/error.h"
#include "models/images/sample_picture.h"
#include "models/samplers/default_sampler.h"

namespace fluxion {

namespace {

constexpr std::int64_t preview_rows = 6;       // of images, one column a class
constexpr std::int64_t preview_points = 4000;  // of a scatter plot
constexpr std::uint64_t preview_seed = 1;      // of the noise: the same in every picture, so that they compare

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// log.csv, one flushed line a row: whoever watches the file sees whole rows.
class Log {
 public:
  explicit Log(const std::filesystem::path& path) : path_(path), file_(path) {
    file_ << "step,seconds,loss,error,gradient_norm,learning_rate\n" << std::flush;
    check();
  }
  void write(const RunProgress& row) {
    char line[256];
    const int length = std::snprintf(line, sizeof line, "%lld,%.3f,%.9g,%.9g,%.9g,%.9g\n", static_cast<long long>(row.step), row.seconds, row.loss,
                                     row.error, row.gradient_norm, row.learning_rate);
    file_.write(line, length);
    file_.flush();
    check();
  }

 private:
  void check() const {
    if (!file_) throw IoError("train: can't write " + path_.string());
  }
  std::filesystem::path path_;
  std::ofstream file_;
};

// The steps since the last report. Their metrics stay on the device until then.
class Window {
 public:
  void add(StepMetrics metrics) { metrics_.push_back(std::move(metrics)); }
  void close(RunProgress& progress) {
    double loss = 0, error = 0, norm = 0;
    for (const StepMetrics& metrics : metrics_) {
      loss += metrics.loss.item<float>();
      error += metrics.error.item<float>();
      norm += metrics.gradient_norm.item<float>();
    }
    const double count = static_cast<double>(metrics_.size());
    progress.loss = loss / count, progress.error = error / count, progress.gradient_norm = norm / count;
    metrics_.clear();
  }

 private:
  std::vector<StepMetrics> metrics_;
};

std::string numbered(std::int64_t step) {
  char name[48];
  std::snprintf(name, sizeof name, "samples-%06lld.png", static_cast<long long>(step));
  return name;
}

void save(const Trainer& trainer, const RunSummary& files) {
  write_model(files.model, trainer.model(Weights::average));
  write_model(files.raw_model, trainer.model(Weights::raw));
  const Image picture = preview(trainer);
  write_png(files.samples.parent_path() / numbered(trainer.steps_done()), picture);
  write_png(files.samples, picture);
}

}  // namespace

Image preview(const Trainer& trainer) {
  const Model model = trainer.model(Weights::average);
  const DataSet& data = trainer.data();
  const std::int64_t classes = num_classes(model.info.network);
  const std::int64_t columns = classes > 0 ? classes : 10;
  const std::int64_t count = data.is_image() ? preview_rows * columns : preview_points;
  std::vector<std::int32_t> labels;
  if (classes > 0)
    for (std::int64_t i = 0; i < count; ++i) labels.push_back(static_cast<std::int32_t>(i % classes));
  const Sampler sampler(model.info.network, model.parameters, default_sampler(model.info.objective));
  const std::vector<float> samples = sampler.sample(count, count, preview_seed, labels);
  const std::vector<float> reference = data.is_image() ? std::vector<float>() : data.batch(count, preview_seed, 0).x;
  return sample_picture(data.sample_shape(), samples, static_cast<int>(columns), reference);
}

RunSummary run_training(Trainer& trainer, const RunLimits& limits, const RunOutput& output, const std::function<void(const RunProgress&)>& report,
                        std::stop_token stop) {
  if (limits.steps < 1) throw Error("train: steps must be at least 1, got " + std::to_string(limits.steps));
  if (output.log_every < 1) throw Error("train: log_every must be at least 1, got " + std::to_string(output.log_every));
  RunSummary summary;
  std::optional<Log> log;
  if (!output.folder.empty()) {
    std::error_code failure;
    std::filesystem::create_directories(output.folder, failure);
    if (failure) throw IoError("train: can't make the folder " + output.folder.string() + ": " + failure.message());
    summary.model = output.folder / "model.safetensors";
    summary.raw_model = output.folder / "model-raw.safetensors";
    summary.samples = output.folder / "samples.png";
    summary.log = output.folder / "log.csv";
    log.emplace(summary.log);
  }

  const std::int64_t first = trainer.steps_done();
  const double seconds_limit = limits.minutes > 0 ? limits.minutes * 60 : std::numeric_limits<double>::infinity();
  const auto start = std::chrono::steady_clock::now();
  double last_save = 0;
  Window window;
  RunProgress& progress = summary.last;
  progress.steps = limits.steps;

  while (true) {
    progress.learning_rate = warm_up(trainer.config().learning_rate, trainer.steps_done(), trainer.config().warm_up_steps);
    window.add(trainer.step());
    const std::int64_t done = trainer.steps_done() - first;
    progress.step = trainer.steps_done();
    progress.seconds = seconds_since(start);
    summary.stopped = stop.stop_requested();
    const bool last = done >= limits.steps || progress.seconds >= seconds_limit || summary.stopped;
    progress.steps_per_second = static_cast<double>(done) / progress.seconds;
    progress.seconds_left =
        last ? 0 : std::min(static_cast<double>(limits.steps - done) / progress.steps_per_second, seconds_limit - progress.seconds);
    if (done == 1 || done % output.log_every == 0 || last) {
      window.close(progress);
      if (log) log->write(progress);
      if (!std::isfinite(progress.loss) || !std::isfinite(progress.gradient_norm))
        throw Error("train: the loss is no longer finite after step " + std::to_string(progress.step) +
                    "; a smaller learning rate, a longer warm-up or gradient clipping may help");
    }
    if (report) report(progress);
    if (last) break;
    if (!output.folder.empty() && progress.seconds - last_save >= output.save_seconds) {
      save(trainer, summary);
      last_save = seconds_since(start);
    }
  }
  if (!output.folder.empty()) save(trainer, summary);
  return summary;
}

}  // namespace fluxion
