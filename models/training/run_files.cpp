#include "models/training/run_files.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <new>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "engine/platform/machine.h"
#include "models/images/curve_chart.h"
#include "models/training/checkpoint.h"
#include "models/training/preview.h"

namespace fluxion {

namespace {

constexpr const char* checkpoint_name = "checkpoint.safetensors";
constexpr const char* kept_name = "checkpoint-before";
constexpr const char* log_name = "log.csv";
// Pictures, logs and headers of files, generously.
constexpr std::uint64_t small_files = 4 << 20;

std::string numbered(std::int64_t step) {
  char name[48];
  std::snprintf(name, sizeof name, "step_%06lld.png", static_cast<long long>(step));
  return name;
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure)
    throw IoError("train: can't make the folder " + folder.string() + ": " + failure.message());
}

bool same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code missing;
  return std::filesystem::equivalent(a, b, missing);
}

std::string decay_text(double decay) { return nlohmann::json(decay).dump(); }

// The error, and the loss below it unless that is the same curve in other units.
std::string loss_chart(const std::vector<LogRow>& rows, const std::string& title) {
  std::vector<double> step, loss, error;
  bool proportional = true;
  for (const LogRow& row : rows) {
    step.push_back(static_cast<double>(row.step)), loss.push_back(row.loss),
        error.push_back(row.error);
    proportional =
        proportional && std::abs(loss.back() * error.front() - error.back() * loss.front()) <=
                            1e-5 * std::abs(loss.back() * error.front());
  }
  std::vector<CurvePanel> panels = {{"error", error}};
  if (!proportional) panels.push_back({"loss", loss});
  return curve_chart(step, panels, {.title = title, .x_label = "step"});
}

}  // namespace

RunFiles::RunFiles(const RunOutput& output, const Trainer& trainer,
                   std::function<void(const std::string&)> warn)
    : folder_(output.folder),
      resumed_from_(output.resumed_from),
      trainer_(trainer),
      settings_(output.settings),
      warn_(std::move(warn)) {
  make_folder(folder_);
  make_folder(folder_ / "samples");
  const std::filesystem::path own = folder_ / checkpoint_name;
  goes_on_ = trainer_.steps_done() > 0 && (resumed_from_.empty() || same_file(resumed_from_, own));
  remove_leftovers();
  check_room();
  if (goes_on_) {
    good_checkpoint_ = std::filesystem::exists(own) ? trainer_.steps_done() : -1;
  } else if (std::filesystem::exists(own)) {
    keep_other_checkpoint();
  }
  // A checkpoint that was put aside has no log of its own: the one beside it is that of the run
  // that took its place.
  const bool aside = resumed_from_.filename().string().starts_with(kept_name);
  log_.emplace(folder_ / log_name,
               trainer_.steps_done() - output.since_row.steps - output.since_row.skipped,
               goes_on_ ? folder_ / log_name
               : aside  ? ""
                        : resumed_from_.parent_path() / log_name,
               needs_loss_scale(trainer_.config().precision));
  write_settings();
}

void RunFiles::keep_other_checkpoint() const {
  const std::filesystem::path checkpoint = folder_ / checkpoint_name;
  std::filesystem::path kept = folder_ / (std::string(kept_name) + ".safetensors");
  if (same_file(kept, resumed_from_)) kept = folder_ / (std::string(kept_name) + "-2.safetensors");
  std::error_code failure;
  std::filesystem::rename(checkpoint, kept, failure);
  if (failure)
    throw IoError("train: can't move " + checkpoint.string() +
                  " of another run out of the way: " + failure.message());
  if (warn_)
    warn_("this folder holds another run; its last checkpoint is kept as " + kept.string());
}

void RunFiles::describe(RunSummary& summary) const {
  summary.model = folder_ / "model.safetensors";
  summary.raw_model = folder_ / "model-raw.safetensors";
  summary.samples = folder_ / "samples.png";
  summary.log = folder_ / "log.csv";
  summary.chart = folder_ / "loss.svg";
  summary.checkpoint = folder_ / checkpoint_name;
}

// The temporary files of a process that was killed while it wrote ("." NAME "." .. ".part",
// engine/platform/file.h) are of no use to anyone.
void RunFiles::remove_leftovers() const {
  std::error_code ignored;
  for (const std::filesystem::path& folder : {folder_, folder_ / "samples"})
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      const bool ours = name.starts_with(".checkpoint") || name.starts_with(".model") ||
                        name.starts_with(".samples.png.") || name.starts_with(".step_") ||
                        name.starts_with(".log.csv.") || name.starts_with(".loss.svg.") ||
                        name.starts_with(".config.json.");
      std::error_code failure;
      if (ours && name.ends_with(".part")) std::filesystem::remove(entry.path(), failure);
    }
}

// The files that are not there yet, and once more the largest, of which there are two while it is
// replaced.
void RunFiles::check_room() const {
  const std::uint64_t checkpoint = checkpoint_bytes(trainer_.config());
  const auto model =
      static_cast<std::uint64_t>(parameter_count(trainer_.config().network)) * sizeof(float);
  std::vector<std::pair<std::filesystem::path, std::uint64_t>> files = {
      {folder_ / checkpoint_name, checkpoint}, {folder_ / "model-raw.safetensors", model}};
  for (std::size_t i = 0; i < trainer_.config().optimiser.ema_decays.size(); ++i)
    files.emplace_back(average_path(i), model);
  std::uint64_t needed = checkpoint + small_files;
  for (const auto& [path, bytes] : files) {
    std::error_code missing;
    const std::uintmax_t there = std::filesystem::file_size(path, missing);
    const bool kept =
        path.filename() == checkpoint_name && !goes_on_;  // another run's, which stays
    needed += missing || kept ? bytes : bytes - std::min<std::uint64_t>(bytes, there);
  }
  const std::optional<std::uint64_t> room = free_disk_bytes(folder_);
  if (!room || *room >= needed) return;
  const auto mebibytes = [](std::uint64_t bytes) {
    return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
  };
  throw IoError("train: the disk of " + folder_.string() + " has " + mebibytes(*room) +
                " left, and this run writes " + mebibytes(needed));
}

void RunFiles::attempt(const std::string& kind, const std::function<void()>& write) {
  try {
    make_folder(folder_);  // where somebody removed it
    write();
    failures_.erase(kind);
  } catch (const IoError& error) {
    const bool news = failures_.insert_or_assign(kind, error.what()).second;
    if (news && warn_)
      warn_(std::string(error.what()) + "; training goes on, and it will be tried again");
  }
}

// What a run can do without, if there is no memory to make it.
void RunFiles::attempt_drawing(const std::string& kind, const std::function<void()>& write) {
  const auto leave_out = [&](const std::string& reason) {
    if (left_out_.insert(kind).second && warn_)
      warn_("no " + kind + " for now: " + reason + "; training goes on");
  };
  attempt(kind, [&] {
    try {
      write();
      left_out_.erase(kind);
    } catch (const OutOfMemory& error) {
      leave_out(error.what());
    } catch (const std::bad_alloc&) {
      leave_out("out of memory");
    }
  });
}

void RunFiles::log(const LogRow& row) {
  attempt("log", [&] { log_->add(row); });
}

void RunFiles::write_checkpoint(double seconds, const LogSums& since_row) {
  attempt("checkpoint", [&] {
    fluxion::write_checkpoint(folder_ / checkpoint_name, trainer_, seconds, settings_, since_row);
    good_checkpoint_ = trainer_.steps_done();
  });
}

std::filesystem::path RunFiles::average_path(std::size_t average) const {
  if (average == 0) return folder_ / "model.safetensors";
  return folder_ / ("model-ema" + decay_text(trainer_.config().optimiser.ema_decays[average]) +
                    ".safetensors");
}

void RunFiles::write_settings() const {
  if (settings_ != RunOutput().settings) replace_file(folder_ / "config.json", settings_ + "\n");
}

void RunFiles::write_results() {
  std::error_code missing;
  if (!std::filesystem::exists(folder_ / "config.json", missing))
    attempt("settings", [&] { write_settings(); });
  attempt("model", [&] {
    for (std::size_t i = 0; i < trainer_.config().optimiser.ema_decays.size(); ++i)
      write_model(average_path(i), trainer_.model(Weights::average, i));
    write_model(folder_ / "model-raw.safetensors", trainer_.model(Weights::raw));
  });
  attempt_drawing("picture", [&] {
    const Image picture = preview(trainer_);
    make_folder(folder_ / "samples");
    write_png(folder_ / "samples" / numbered(trainer_.steps_done()), picture);
    write_png(folder_ / "samples.png", picture);
  });
  attempt_drawing("chart", [&] {
    const std::string title = trainer_.data().name() + ", " + trainer_.config().method.method->name;
    replace_file(folder_ / "loss.svg", loss_chart(log_->rows(), title));
  });
}

void RunFiles::finish(double seconds, const LogSums& since_row) {
  write_checkpoint(seconds, since_row);
  write_results();
  if (failures_.empty()) return;
  std::error_code missing;
  if (!std::filesystem::exists(folder_ / checkpoint_name, missing)) good_checkpoint_ = -1;
  const std::string good = good_checkpoint_ < 0 ? "no checkpoint could be written"
                                                : "the last good checkpoint, after step " +
                                                      std::to_string(good_checkpoint_) + ", is " +
                                                      (folder_ / checkpoint_name).string();
  const auto checkpoint = failures_.find("checkpoint");  // the one that matters most
  throw IoError(
      "train: " + (checkpoint != failures_.end() ? checkpoint : failures_.begin())->second + "; " +
      good);
}

}  // namespace fluxion
