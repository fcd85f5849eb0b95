#include "models/training/log.h"

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <optional>
#include <system_error>

#include "engine/error.h"
#include "engine/platform/file.h"

namespace fluxion {

namespace {

constexpr const char* header =
    "step,seconds,loss,error,gradient_norm,learning_rate,peak_memory_mib";

std::string text_of(const LogRow& row) {
  char line[256];
  std::snprintf(line, sizeof line, "%lld,%.3f,%.9g,%.9g,%.9g,%.9g,%.1f\n",
                static_cast<long long>(row.step), row.seconds, row.loss, row.error,
                row.gradient_norm, row.learning_rate, row.peak_memory_mib);
  return line;
}

std::optional<LogRow> row_of(const std::string& line) {
  LogRow row;
  long long step = 0;
  int end = -1;
  std::sscanf(line.c_str(), "%lld,%lf,%lf,%lf,%lf,%lf,%lf%n", &step, &row.seconds, &row.loss,
              &row.error, &row.gradient_norm, &row.learning_rate, &row.peak_memory_mib, &end);
  if (end != static_cast<int>(line.size())) return std::nullopt;
  row.step = step;
  return row;
}

}  // namespace

TrainingLog::TrainingLog(std::filesystem::path path, std::int64_t step,
                         const std::filesystem::path& before)
    : path_(std::move(path)) {
  std::string text = std::string(header) + "\n";
  if (step > 0) {
    std::ifstream file(before);
    std::string line;
    if (std::getline(file, line) && line == header)
      // The last line counts only if its end is there.
      while (std::getline(file, line) && !file.eof()) {
        const std::optional<LogRow> row = row_of(line);
        if (!row || row->step > step || (!rows_.empty() && row->step <= rows_.back().step)) break;
        rows_.push_back(*row);
        text += line + "\n";
      }
  }
  replace_file(path_, text);
  size_ = text.size();
}

void TrainingLog::add(const LogRow& row) {
  rows_.push_back(row);
  pending_ += text_of(row);
  errno = 0;
  std::ofstream file(path_, std::ios::app | std::ios::binary);
  file << pending_ << std::flush;
  if (!file) {
    const int reason = errno;
    file.close();
    std::error_code ignored;
    std::filesystem::resize_file(path_, size_, ignored);  // half a row is worse than none
    throw IoError("writing " + path_.string() + ": " +
                  (reason != 0 ? std::generic_category().message(reason) : "the disk refuses"));
  }
  size_ += pending_.size();
  pending_.clear();
}

}  // namespace fluxion
