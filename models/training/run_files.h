// The files of a training run, and what happens where the disk does not take one.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/training/log.h"
#include "models/training/run.h"

namespace fluxion {

// Training has left the finite numbers: nothing of what it holds is worth saving.
class Diverged : public Error {
 public:
  using Error::Error;
};

// Renames a run's checkpoint to a checkpoint-before.safetensors of its folder that is not there
// yet. Returns its new name. Throws IoError.
std::filesystem::path put_checkpoint_aside(const std::filesystem::path& checkpoint);

class RunFiles {
 public:
  // Makes the folder and locks it for this run, checks that its disk has room, keeps the checkpoint
  // of another run that is there, starts or continues the log and removes what a killed run left
  // half written, and what another run left that this one does not replace. Throws IoError.
  RunFiles(const RunOutput& output, const Trainer& trainer,
           std::function<void(const std::string&)> warn);

  // Fills in the names of the files.
  void describe(RunSummary& summary) const;

  // On the way: a failure is a warning, once for each kind of file until it works again. Weights
  // that are not finite are no such failure: they are not saved, and Diverged says so.
  void log(const LogRow& row);
  // The checkpoint before this one stays as checkpoint-previous.safetensors.
  void write_checkpoint(double seconds, const LogSums& since_row);
  void write_results();  // model files, pictures, chart
  // At the end: tries everything, then throws IoError if something failed.
  void finish(double seconds, const LogSums& since_row);
  // Where training fails otherwise: a checkpoint and models of what was learned, if that is still
  // whole. Pictures would take memory that may be what is lacking.
  void rescue(double seconds, const LogSums& since_row);
  // "the last good checkpoint, after step 100, is ..", for messages.
  std::string good_checkpoint() const;

 private:
  void hold_folder();
  void refuse_special_files() const;
  std::filesystem::path link_to_checkpoint() const;
  void attempt(const std::string& kind, const std::function<void()>& write);
  void attempt_drawing(const std::string& kind, const std::function<void()>& write);
  void check_room() const;
  void write_settings() const;
  void write_models();
  void keep_other_checkpoint(const std::filesystem::path& checkpoint) const;
  void remove_leftovers() const;
  void remove_averages_of_other() const;
  void remove_pictures_of_other() const;
  std::filesystem::path average_path(std::size_t average) const;

  std::filesystem::path folder_, resumed_from_;
  const Trainer& trainer_;
  std::string settings_;
  std::function<void(const std::string&)> warn_;
  std::optional<FolderLock> lock_;
  bool goes_on_ =
      false;  // with the checkpoint of the folder, as opposed to one of elsewhere or none
  bool replaces_other_ = false;  // a run that was here before, and has results left
  std::optional<TrainingLog> log_;
  std::map<std::string, std::string> failures_;  // kind of file -> why it could not be written
  std::set<std::string> left_out_;               // kinds of drawings that there was no memory for
  std::int64_t good_checkpoint_ = -1;            // its step
  std::int64_t finite_at_ = -1;                  // step at which all weights were looked at
};

}  // namespace fluxion
