// One line that says how far a long command is.
#pragma once

#include <chrono>
#include <string>

#include "cli/program.h"

namespace fluxion::cli {

// On a terminal the line is rewritten in place, ten times a second at most; elsewhere - a log file, a pipe - a plain line is added every few seconds.
class ProgressLine {
 public:
  explicit ProgressLine(const Streams& streams) : streams_(streams) {}
  ~ProgressLine() { finish(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // True if a line written now would be shown: saves making its text.
  bool due() const;
  void show(const std::string& text);
  // Ends the line, so that other output starts on a new one.
  void finish();

 private:
  const Streams& streams_;
  std::chrono::steady_clock::time_point last_{};
  bool shown_ = false, open_ = false;
};

}  // namespace fluxion::cli
