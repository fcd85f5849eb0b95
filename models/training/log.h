// log.csv: one row every few steps, flushed, so that whoever watches the file sees whole rows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace fluxion {

struct LogRow {
  std::int64_t step = 0;  // updates done
  double seconds = 0;     // of training, over all parts of the run
  // Means over the steps since the row before.
  double loss = 0, error = 0, gradient_norm = 0;
  double learning_rate = 0;    // of the last update
  double peak_memory_mib = 0;  // the most this process has held so far
  // Where the loss is scaled: the scale of the last update, and updates that were skipped since the
  // row before. The means don't count those.
  double loss_scale = 0;
  std::int64_t skipped = 0;
};

// Sums over the steps since the last row, whose means are the next row. A checkpoint keeps them, so
// that the log of a run that goes on from it is that of a run that never stopped.
struct LogSums {
  double loss = 0, error = 0, gradient_norm = 0;
  std::int64_t steps = 0;    // that the sums are of
  std::int64_t skipped = 0;  // beside them, where the loss is scaled
  bool operator==(const LogSums&) const = default;
};

class TrainingLog {
 public:
  // Replaces what is there: with step 0 by an empty log; else by the rows of the log `before` up to
  // `step`, so that the log of a run that goes on from there reads as one. Rows that a crash cut
  // short are dropped; a missing file reads as zero rows. Where a line is no row, it and what
  // follows is left out, and the file is kept beside this one. Throws IoError.
  // Rows have the columns of loss scaling if `scaled`.
  TrainingLog(std::filesystem::path path, std::int64_t step, const std::filesystem::path& before,
              bool scaled = false);

  // Throws IoError if the disk does not take the row. It is kept then and written with the next
  // one; the file holds whole rows only. A file that somebody removed or changed is written again.
  void add(const LogRow& row);

  const std::vector<LogRow>& rows() const { return rows_; }
  // The file that was there, if not all of it could be read; else empty.
  const std::filesystem::path& kept() const { return kept_; }

 private:
  std::filesystem::path path_, kept_;
  bool scaled_;
  std::vector<LogRow> rows_;
  std::string text_;         // what the file should hold
  std::size_t written_ = 0;  // bytes of it that the file holds
};

}  // namespace fluxion
