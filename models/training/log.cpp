#include "models/training/log.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <optional>
#include <string_view>
#include <system_error>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"

namespace fluxion {

namespace {

std::string header(bool scaled) {
  const std::string columns = "step,seconds,loss,error,gradient_norm,learning_rate,peak_memory_mib";
  return scaled ? columns + ",loss_scale,skipped" : columns;
}

std::string text_of(const LogRow& row, bool scaled) {
  std::string line = std::to_string(row.step) + "," + fixed_text(row.seconds, 3);
  for (const double value : {row.loss, row.error, row.gradient_norm, row.learning_rate})
    line += "," + rounded_text(value, 9);
  line += "," + fixed_text(row.peak_memory_mib, 1);
  if (scaled) line += "," + rounded_text(row.loss_scale, 9) + "," + std::to_string(row.skipped);
  return line + "\n";
}

// The row of a line without its end; nothing if it is none.
std::optional<LogRow> row_of(std::string_view line, bool scaled) {
  LogRow row;
  const auto cell = [&]() {
    const std::size_t end = std::min(line.find(','), line.size());
    const std::string_view text = line.substr(0, end);
    line.remove_prefix(std::min(end + 1, line.size()));
    return text;
  };
  if (std::count(line.begin(), line.end(), ',') != (scaled ? 8 : 6)) return std::nullopt;
  const auto step = parse_number<std::int64_t>(cell());
  if (!step) return std::nullopt;
  row.step = *step;
  for (double LogRow::*member :
       {&LogRow::seconds, &LogRow::loss, &LogRow::error, &LogRow::gradient_norm,
        &LogRow::learning_rate, &LogRow::peak_memory_mib}) {
    const auto value = parse_number<double>(cell());
    if (!value) return std::nullopt;
    row.*member = *value;
  }
  if (scaled) {
    const auto loss_scale = parse_number<double>(cell());
    const auto skipped = parse_number<std::int64_t>(cell());
    if (!loss_scale || !skipped) return std::nullopt;
    row.loss_scale = *loss_scale, row.skipped = *skipped;
  }
  return row;
}

// The lines of a file, each only if its end is there; none of a missing file.
class Lines {
 public:
  explicit Lines(const std::filesystem::path& path) {
    std::error_code missing;
    if (!std::filesystem::exists(path, missing)) return;
    file_ = MappedFile(path);
    rest_ = {reinterpret_cast<const char*>(file_.bytes().data()), file_.bytes().size()};
  }
  std::optional<std::string> next() {
    constexpr std::size_t longest = 1000;
    const std::size_t end = rest_.substr(0, longest).find('\n');
    if (end == rest_.npos) return std::nullopt;
    std::string line(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    if (line.ends_with('\r')) line.pop_back();  // as some editors save it
    return line;
  }

 private:
  MappedFile file_;
  std::string_view rest_;
};

}  // namespace

TrainingLog::TrainingLog(std::filesystem::path path, std::int64_t step,
                         const std::filesystem::path& before, bool scaled)
    : path_(std::move(path)), scaled_(scaled), text_(header(scaled) + "\n") {
  if (step > 0) {
    bool all_read = true;  // of what an end of a line says to be whole
    {
      Lines lines(before);
      const std::optional<std::string> columns = lines.next();
      all_read = !columns || columns == header(scaled);
      while (const std::optional<std::string> line = all_read ? lines.next() : std::nullopt) {
        const std::optional<LogRow> row = row_of(*line, scaled);
        all_read = row && (rows_.empty() || row->step > rows_.back().step);
        if (!all_read || row->step > step) break;
        rows_.push_back(*row);
        text_ += *line + "\n";
      }
    }
    std::error_code unknown;
    if (!all_read && std::filesystem::equivalent(before, path_, unknown)) {
      kept_ = path_.parent_path() / "log-before.csv";
      std::error_code failure;
      std::filesystem::copy_file(path_, kept_, std::filesystem::copy_options::overwrite_existing,
                                 failure);
      if (failure) throw IoError("writing " + kept_.string() + ": " + failure.message());
    }
  }
  replace_file(path_, text_);
  written_ = text_.size();
}

void TrainingLog::add(const LogRow& row) {
  rows_.push_back(row);
  text_ += text_of(row, scaled_);
  std::error_code missing;
  if (std::filesystem::file_size(path_, missing) != written_) {
    replace_file(path_, text_);
    written_ = text_.size();
    return;
  }
  errno = 0;
  std::ofstream file(path_, std::ios::app | std::ios::binary);
  file << std::string_view(text_).substr(written_) << std::flush;
  if (!file) {
    const int reason = errno;
    file.close();
    std::error_code ignored;
    std::filesystem::resize_file(path_, written_, ignored);  // half a row is worse than none
    throw IoError("writing " + path_.string() + ": " +
                  (reason != 0 ? std::generic_category().message(reason) : "the disk refuses"));
  }
  written_ = text_.size();
}

}  // namespace fluxion
