#include "models/data/cifar10.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/data/array_set.h"
#include "models/files/file_array.h"

namespace fluxion {

namespace {

constexpr std::size_t side = 32, plane = side * side, record = 1 + 3 * plane;
constexpr int classes = 10;
constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";  // as Windows' editors put before text

std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder, Split split) {
  std::vector<std::filesystem::path> result;
  std::error_code error;
  const auto add = [&](const std::string& file) {
    if (std::filesystem::exists(folder / file, error)) result.push_back(folder / file);
  };
  if (split == Split::test) add("test_batch.bin");
  for (int i = 1; split == Split::train && i <= 5; ++i)
    add("data_batch_" + std::to_string(i) + ".bin");
  return result;
}

// Red, green and blue planes to pixels.
void append(const std::filesystem::path& path, std::vector<std::uint8_t>& pixels,
            std::vector<std::int32_t>& labels) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.empty() || bytes.size() % record != 0)
    throw FormatError(path.string() + ": " + std::to_string(bytes.size()) +
                      " bytes are not a whole number of CIFAR-10's records of " +
                      std::to_string(record));
  for (std::size_t start = 0; start < bytes.size(); start += record) {
    const int label = std::to_integer<int>(bytes[start]);
    if (label >= classes)
      throw FormatError(path.string() + ": record " + std::to_string(start / record) +
                        " has label " + std::to_string(label) + " (0 to 9)");
    labels.push_back(label);
    for (std::size_t i = 0; i < plane; ++i)
      for (std::size_t c = 0; c < 3; ++c)
        pixels.push_back(std::to_integer<std::uint8_t>(bytes[start + 1 + c * plane + i]));
  }
  file.check_whole();
}

// One name a line; a list that does not fit is not believed.
std::vector<std::string> names_in(const std::filesystem::path& path,
                                  std::vector<std::string>& warnings) {
  constexpr std::size_t longest_list = 10'000;
  std::vector<std::string> names;
  std::error_code missing;
  if (!std::filesystem::exists(path, missing)) return numbered_classes(classes);
  const MappedFile file(path);
  const auto start = file.bytes().first(std::min(file.bytes().size(), longest_list));
  std::istringstream lines(std::string(reinterpret_cast<const char*>(start.data()), start.size()));
  for (std::string line; names.size() <= classes && std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (names.empty() && line.starts_with(byte_order_mark)) line.erase(0, byte_order_mark.size());
    if (!line.empty()) names.push_back(line);
  }
  const bool distinct = std::set<std::string>(names.begin(), names.end()).size() == classes;
  if (names.size() == classes && distinct) return names;
  warnings.push_back(path.string() +
                     ": not the names of ten classes, a line each; they are called 0 to 9");
  return numbered_classes(classes);
}

}  // namespace

bool is_cifar10_folder(const std::filesystem::path& folder) {
  return !files_of(folder, Split::train).empty() || !files_of(folder, Split::test).empty();
}

std::unique_ptr<DataSet> cifar10(const std::filesystem::path& folder,
                                 const DataSetOptions& options) {
  const std::vector<std::filesystem::path> files = files_of(folder, options.split);
  if (files.empty() && options.split == Split::test)
    throw NoTestPart("reading CIFAR-10: " + folder.string() + " lacks test_batch.bin");
  if (files.empty())
    throw IoError("reading CIFAR-10: " + folder.string() + " lacks data_batch_1.bin");
  std::uint64_t records = 0;
  for (const std::filesystem::path& file : files)
    records += MappedFile(file).bytes().size() / record;
  require_memory(records * (3 * plane + sizeof(std::int32_t)), folder.string(),
                 options.memory_limit);
  ArrayContent content;
  std::vector<std::uint8_t> pixels;
  pixels.reserve(records * 3 * plane);
  content.labels.reserve(records);
  for (const std::filesystem::path& file : files) append(file, pixels, content.labels);
  content.count = static_cast<std::int64_t>(content.labels.size());
  content.sample_shape = {side, side, 3};
  content.class_names = names_in(folder / "batches.meta.txt", content.warnings);
  if (options.split == Split::train && files.size() < 5)
    content.warnings.push_back(folder.string() + ": " + std::to_string(files.size()) +
                               " of CIFAR-10's 5 training files are there");
  return array_set(folder.string(), std::move(content).with(std::move(pixels)), options);
}

}  // namespace fluxion
