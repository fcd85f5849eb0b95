#include "models/training/run_files.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <new>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/number_text.h"
#include "engine/platform/machine.h"
#include "models/images/curve_chart.h"
#include "models/training/checkpoint.h"
#include "models/training/preview.h"

namespace fluxion {

namespace {

constexpr const char* checkpoint_name = "checkpoint.safetensors";
constexpr const char* previous_name = "checkpoint-previous.safetensors";
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

// The first of the tensors that holds a number which is not finite; empty if none does.
std::string not_finite_in(const Parameters& tensors, const std::string& prefix) {
  for (const auto& [name, tensor] : tensors) {
    const std::vector<float> values = tensor.to_host<float>();
    if (!std::all_of(values.begin(), values.end(),
                     [](float value) { return std::isfinite(value); }))
      return prefix + name;
  }
  return "";
}

void check_finite_state(const TrainState& state, std::int64_t step) {
  std::string found = not_finite_in(state.parameters, "");
  if (found.empty()) found = not_finite_in(state.m, "first moments of ");
  if (found.empty()) found = not_finite_in(state.v, "second moments of ");
  for (const Parameters& average : state.ema)
    if (found.empty()) found = not_finite_in(average, "average of ");
  for (const auto& [name, tree] : state.method)
    if (found.empty()) found = not_finite_in(tree, name + " of ");
  if (!found.empty())
    throw Diverged("train: the weights are no longer finite after step " + std::to_string(step) +
                   " (" + found + ")");
}

std::string average_name(double decay) {
  return "model-ema" + nlohmann::json(decay).dump() + ".safetensors";
}

// The N of a name such as "step_N.png".
template <class T>
std::optional<T> number_between(std::string_view name, std::string_view before,
                                std::string_view after) {
  if (!name.starts_with(before) || !name.ends_with(after) ||
      name.size() < before.size() + after.size())
    return std::nullopt;
  name.remove_prefix(before.size());
  name.remove_suffix(after.size());
  return parse_number<T>(name);
}

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

std::filesystem::path put_checkpoint_aside(const std::filesystem::path& checkpoint) {
  const std::filesystem::path folder = checkpoint.parent_path();
  std::filesystem::path kept = folder / (std::string(kept_name) + ".safetensors");
  std::error_code failure;
  for (int i = 2; std::filesystem::exists(kept, failure); ++i)
    kept = folder / (std::string(kept_name) + "-" + std::to_string(i) + ".safetensors");
  std::filesystem::rename(checkpoint, kept, failure);
  if (failure)
    throw IoError("train: can't move " + checkpoint.string() +
                  " of another run out of the way: " + failure.message());
  return kept;
}

RunFiles::RunFiles(const RunOutput& output, const Trainer& trainer,
                   std::function<void(const std::string&)> warn)
    : folder_(output.folder),
      resumed_from_(output.resumed_from),
      trainer_(trainer),
      settings_(output.settings),
      warn_(std::move(warn)) {
  hold_folder();
  make_folder(folder_ / "samples");
  refuse_special_files();
  const std::filesystem::path own = folder_ / checkpoint_name, previous = folder_ / previous_name;
  goes_on_ = trainer_.steps_done() > 0 && (resumed_from_.empty() || same_file(resumed_from_, own));
  remove_leftovers();
  check_room();
  if (goes_on_) {
    good_checkpoint_ = std::filesystem::exists(own) ? trainer_.steps_done() : -1;
  } else if (std::filesystem::exists(own)) {
    keep_other_checkpoint(own);
    std::error_code failure;
    if (!same_file(previous, resumed_from_)) std::filesystem::remove(previous, failure);
  } else if (std::filesystem::exists(previous) && !same_file(previous, resumed_from_)) {
    keep_other_checkpoint(previous);
  }
  std::error_code ignored;
  replaces_other_ = !goes_on_ && std::filesystem::exists(folder_ / log_name, ignored);
  if (replaces_other_) remove_pictures_of_other();
  // A checkpoint that was put aside has no log of its own: the one beside it is that of the run
  // that took its place.
  const bool aside = resumed_from_.filename().string().starts_with(kept_name);
  log_.emplace(folder_ / log_name,
               trainer_.steps_done() - output.since_row.steps - output.since_row.skipped,
               goes_on_ ? folder_ / log_name
               : aside  ? ""
                        : resumed_from_.parent_path() / log_name,
               needs_loss_scale(trainer_.config().precision));
  if (!log_->kept().empty() && warn_)
    warn_(
        (folder_ / log_name).string() +
        " is not as it was written: rows after the first that can't be read are left out, and the "
        "file is kept as " +
        log_->kept().string());
  write_settings();
}

// Anew where somebody removed the folder under the run.
void RunFiles::hold_folder() {
  make_folder(folder_);
  if (lock_ && (lock_->holds() || !lock_->effective())) return;
  lock_.reset();
  lock_.emplace(folder_);
  if (!lock_->effective() && warn_)
    warn_("the file system of " + folder_.string() +
          " has no locks: another run in it would not be noticed");
}

// A pipe or a device under the name of a file would keep the run waiting, or never end.
void RunFiles::refuse_special_files() const {
  for (const char* name : {checkpoint_name, previous_name, log_name, "config.json", "loss.svg",
                           "samples.png", "model.safetensors", "model-raw.safetensors"}) {
    std::error_code missing;
    const std::filesystem::file_status status = std::filesystem::status(folder_ / name, missing);
    if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
      throw IoError("train: " + (folder_ / name).string() +
                    " is in the way: it is not a regular file");
  }
}

// A second name of the last good checkpoint, which becomes that of the one before once there is a
// newer one. A file system without such names keeps one checkpoint.
std::filesystem::path RunFiles::link_to_checkpoint() const {
  if (good_checkpoint_ < 0) return {};
  const std::filesystem::path link = folder_ / ("." + std::string(previous_name) + "." +
                                                std::to_string(good_checkpoint_) + ".part");
  std::error_code failure;
  std::filesystem::remove(link, failure);
  std::filesystem::create_hard_link(folder_ / checkpoint_name, link, failure);
  return failure ? std::filesystem::path() : link;
}

void RunFiles::keep_other_checkpoint(const std::filesystem::path& checkpoint) const {
  const std::filesystem::path kept = put_checkpoint_aside(checkpoint);
  if (!warn_) return;
  std::error_code unknown;
  const bool goes_back = std::filesystem::equivalent(resumed_from_.parent_path(), folder_, unknown);
  warn_((goes_back
             ? "this goes back to an earlier checkpoint of the folder; the last one is kept as "
             : "this folder holds another run; its last checkpoint is kept as ") +
        kept.string() + ", of which --resume with another --out writes the models");
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
// engine/platform/file.h) are of no use to anyone. Those of one that lives stay.
void RunFiles::remove_leftovers() const {
  std::error_code ignored;
  for (const std::filesystem::path& folder : {folder_, folder_ / "samples"})
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      const bool ours = name.starts_with(".checkpoint") || name.starts_with(".model") ||
                        name.starts_with(".samples.png.") || name.starts_with(".step_") ||
                        name.starts_with(".log.csv.") || name.starts_with(".loss.svg.") ||
                        name.starts_with(".config.json.");
      if (ours && name.ends_with(".part")) remove_abandoned_file(entry.path());
    }
}

// Averages of other decays: beside the files that this run has replaced.
void RunFiles::remove_averages_of_other() const {
  std::error_code ignored;
  std::set<std::filesystem::path> own;
  for (std::size_t i = 0; i < trainer_.config().optimiser.ema_decays.size(); ++i)
    own.insert(average_path(i));
  for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename().string();
    const auto decay = number_between<double>(name, "model-ema", ".safetensors");
    if (decay && name == average_name(*decay) && !own.contains(entry.path()))
      std::filesystem::remove(entry.path(), ignored);
  }
}

void RunFiles::remove_pictures_of_other() const {
  std::error_code ignored;
  // Going on from the checkpoint before the last, the run has made those before it itself.
  const bool same = same_file(resumed_from_, folder_ / previous_name);
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "samples", ignored)) {
    const std::string name = entry.path().filename().string();
    const auto step = number_between<std::int64_t>(name, "step_", ".png");
    if (step && name == numbered(*step) && !(same && *step <= trainer_.steps_done()))
      std::filesystem::remove(entry.path(), ignored);
  }
}

// The files that are not there yet, and once more the largest, of which there are two while it is
// replaced.
void RunFiles::check_room() const {
  const std::uint64_t checkpoint = checkpoint_bytes(trainer_.config());
  const auto model =
      static_cast<std::uint64_t>(parameter_count(trainer_.config().network)) * sizeof(float);
  std::vector<std::pair<std::filesystem::path, std::uint64_t>> files = {
      {folder_ / checkpoint_name, checkpoint},
      {folder_ / previous_name, checkpoint},
      {folder_ / "model-raw.safetensors", model}};
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
    hold_folder();
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
    } catch (const IoError&) {
      throw;
    } catch (const Error& error) {
      leave_out(error.what());  // nothing that can be drawn
    }
  });
}

void RunFiles::log(const LogRow& row) {
  attempt("log", [&] { log_->add(row); });
}

void RunFiles::write_checkpoint(double seconds, const LogSums& since_row) {
  if (finite_at_ != trainer_.steps_done())
    check_finite_state(trainer_.state(), trainer_.steps_done());
  finite_at_ = trainer_.steps_done();
  attempt("checkpoint", [&] {
    const std::filesystem::path before = link_to_checkpoint();
    std::error_code failure;
    try {
      fluxion::write_checkpoint(folder_ / checkpoint_name, trainer_, seconds, settings_, since_row);
    } catch (...) {
      std::filesystem::remove(before, failure);
      throw;
    }
    good_checkpoint_ = trainer_.steps_done();
    if (before.empty()) return;
    std::filesystem::rename(before, folder_ / previous_name, failure);
    // Two names of one file are left as they are.
    std::filesystem::remove(before, failure);
  });
}

std::filesystem::path RunFiles::average_path(std::size_t average) const {
  if (average == 0) return folder_ / "model.safetensors";
  return folder_ / average_name(trainer_.config().optimiser.ema_decays[average]);
}

void RunFiles::write_settings() const {
  if (settings_ != RunOutput().settings) replace_file(folder_ / "config.json", settings_ + "\n");
}

void RunFiles::write_models() {
  attempt("model", [&] {
    for (std::size_t i = 0; i < trainer_.config().optimiser.ema_decays.size(); ++i)
      write_model(average_path(i), trainer_.model(Weights::average, i));
    write_model(folder_ / "model-raw.safetensors", trainer_.model(Weights::raw));
    // Not before there is something better: the run may have begun with one of them.
    if (std::exchange(replaces_other_, false)) remove_averages_of_other();
  });
}

void RunFiles::write_results() {
  if (finite_at_ != trainer_.steps_done())
    check_finite_state(trainer_.state(), trainer_.steps_done());
  finite_at_ = trainer_.steps_done();
  std::error_code missing;
  if (!std::filesystem::exists(folder_ / "config.json", missing))
    attempt("settings", [&] { write_settings(); });
  write_models();
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
  const auto checkpoint = failures_.find("checkpoint");  // the one that matters most
  throw IoError(
      "train: " + (checkpoint != failures_.end() ? checkpoint : failures_.begin())->second + "; " +
      good_checkpoint());
}

void RunFiles::rescue(double seconds, const LogSums& since_row) {
  if (good_checkpoint_ == trainer_.steps_done() || trainer_.steps_done() == 0) return;
  try {
    write_checkpoint(seconds, since_row);
    if (good_checkpoint_ == trainer_.steps_done() && warn_)
      warn_("what was learned up to step " + std::to_string(good_checkpoint_) + " is saved in " +
            (folder_ / checkpoint_name).string());
    write_models();
  } catch (const std::exception&) {
    // The failure that ended the run may well have taken the weights with it.
  }
}

std::string RunFiles::good_checkpoint() const {
  std::error_code missing;
  const std::filesystem::path own = folder_ / checkpoint_name, previous = folder_ / previous_name;
  if (good_checkpoint_ < 0 || !std::filesystem::exists(own, missing))
    return std::string("no checkpoint ") +
           (failures_.contains("checkpoint") ? "could be written" : "was written yet") +
           (resumed_from_.empty() || !std::filesystem::exists(resumed_from_, missing)
                ? ""
                : "; the run began with " + resumed_from_.string());
  return "the last good checkpoint, after step " + std::to_string(good_checkpoint_) + ", is " +
         own.string() +
         (std::filesystem::exists(previous, missing) ? ", the one before it " + previous.string()
                                                     : "");
}

}  // namespace fluxion
