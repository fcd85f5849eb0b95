// The files of a training run, and what happens where the disk does not take one.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "models/training/log.h"
#include "models/training/run.h"

namespace fluxion {

class RunFiles {
 public:
  // Makes the folder, checks that its disk has room, starts or continues the log and removes what a killed run left half written. Throws IoError.
  RunFiles(std::filesystem::path folder, const Trainer& trainer, std::string settings, std::function<void(const std::string&)> warn);

  // Fills in the names of the files.
  void describe(RunSummary& summary) const;

  // On the way: a failure is a warning, once for each kind of file until it works again.
  void log(const LogRow& row);
  void write_checkpoint(double seconds);
  void write_results();  // model files, pictures, chart
  // At the end: tries everything, then throws IoError if something failed.
  void finish(double seconds);

 private:
  void attempt(const std::string& kind, const std::function<void()>& write);
  void check_room() const;
  void remove_leftovers() const;
  std::filesystem::path average_path(std::size_t average) const;

  std::filesystem::path folder_;
  const Trainer& trainer_;
  std::string settings_;
  std::function<void(const std::string&)> warn_;
  std::optional<TrainingLog> log_;
  std::map<std::string, std::string> failures_;  // kind of file -> why it could not be written
  std::int64_t good_checkpoint_ = -1;            // its step
};

}  // namespace fluxion
