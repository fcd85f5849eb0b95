// What a long command says while it runs.
#pragma once

#include <chrono>
#include <cstddef>
#include <mutex>
#include <string>

#include "cli/program.h"

namespace fluxion {
struct RunProgress;
}

namespace fluxion::cli {

// One line that says how far a command is. On a terminal it is rewritten in place, ten times a
// second at most; elsewhere - a log file, a pipe - plain lines are added at growing intervals, so
// that a long run leaves a short log.
class ProgressLine {
 public:
  explicit ProgressLine(const Streams& streams) : streams_(streams) {}
  ~ProgressLine() { finish(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // True if a line written now would be shown: saves making its text.
  bool due() const;
  void show(const std::string& text);
  // Whether a line stands that is rewritten in place.
  bool open() const { return open_; }
  // Ends the line, so that other output starts on a new one.
  void finish();

 private:
  const Streams& streams_;
  std::chrono::steady_clock::time_point last_{};
  std::chrono::duration<double> interval_{2};  // of plain lines
  bool shown_ = false, open_ = false;
};

// The line of a training run, with a bar where the terminal has room for one.
class TrainingProgress {
 public:
  TrainingProgress(const Streams& streams, bool quiet)
      : streams_(streams), line_(streams), quiet_(quiet) {}
  void show(const RunProgress& progress);
  void warn(const std::string& text);  // also where quiet

 private:
  void estimate(const RunProgress& progress);

  const Streams& streams_;
  ProgressLine line_;
  bool quiet_;
  int steps_seen_ = 0;
};

// What a driver does before a program first runs: "building shaders 37/108", where that takes
// longer than a moment. Any thread may call it.
class CompilingProgress {
 public:
  explicit CompilingProgress(const Streams& streams) : line_(streams) {}
  void show(std::size_t done, std::size_t all);

 private:
  std::mutex mutex_;
  ProgressLine line_;
  std::chrono::steady_clock::time_point start_{};
};

// "[#######-------------]", 0 <= fraction <= 1, with `cells` characters between the brackets.
std::string bar_text(double fraction, int cells);

}  // namespace fluxion::cli
