#include "models/data/idx_images.h"

#include <utility>

#include "engine/error.h"
#include "models/data/array_set.h"
#include "models/files/idx.h"

namespace fluxion {

namespace {

// The first of these that is there; else an empty path.
std::filesystem::path first_of(const std::vector<std::filesystem::path>& candidates) {
  for (const std::filesystem::path& candidate : candidates) {
    std::error_code error;
    if (std::filesystem::is_regular_file(candidate, error)) return candidate;
  }
  return {};
}

std::string missing(const std::vector<std::filesystem::path>& candidates) {
  std::string tried = "reading images: none of these files is there:";
  for (const std::filesystem::path& candidate : candidates) tried += "\n  " + candidate.string();
  return tried;
}

}  // namespace

bool is_idx_folder(const std::filesystem::path& folder) {
  for (const char* part : {"train", "t10k"})
    for (const char* kind : {"images-idx3", "labels-idx1"})
      for (const char* ending : {"", ".gz"}) {
        std::error_code error;
        if (std::filesystem::exists(folder / (std::string(part) + "-" + kind + "-ubyte" + ending),
                                    error))
          return true;
      }
  return false;
}

std::unique_ptr<DataSet> idx_images(const std::filesystem::path& path,
                                    const DataSetOptions& options) {
  std::filesystem::path image_file = path, label_file;
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    const std::string part = options.split == Split::train ? "train" : "t10k";
    const auto names = [&](const std::string& kind) {
      std::vector<std::filesystem::path> result;
      for (const char* ending : {"", ".gz"})
        result.push_back(path / (part + "-" + kind + "-ubyte" + ending));
      return result;
    };
    const auto images = names("images-idx3"), labels = names("labels-idx1");
    image_file = first_of(images);
    if (image_file.empty() && options.split == Split::test) throw NoTestPart(missing(images));
    if (image_file.empty()) throw IoError(missing(images));
    if (options.labels) label_file = first_of(labels);
    if (options.labels && label_file.empty())
      throw IoError(missing(labels) + "\n(--no-labels takes the images without)");
  } else if (options.labels) {
    std::string labels = path.filename().string();
    const std::string from = "images-idx3", to = "labels-idx1";
    if (const auto at = labels.find(from); at != labels.npos) {
      labels.replace(at, from.size(), to);
      const std::string bare =
          labels.ends_with(".gz") ? labels.substr(0, labels.size() - 3) : labels;
      label_file = first_of({path.parent_path() / bare, path.parent_path() / (bare + ".gz")});
    }
  }

  IdxArray images = read_idx(image_file);
  if (images.shape.rank() != 3)
    throw FormatError(image_file.string() +
                      ": images have axes [count, rows, columns], this file has " +
                      to_string(images.shape));
  const std::int64_t count = images.shape[0], rows = images.shape[1], columns = images.shape[2];
  if (count == 0 || rows == 0 || columns == 0)
    throw FormatError(image_file.string() + ": holds no images: " + to_string(images.shape));
  ArrayContent content;
  content.count = count;
  content.sample_shape = {rows, columns, 1};
  if (!label_file.empty()) {
    const IdxArray labels = read_idx(label_file);
    if (labels.shape != Shape{count})
      throw FormatError(label_file.string() + ": " + std::to_string(count) +
                        " images need labels " + to_string(Shape{count}) + ", got " +
                        to_string(labels.shape));
    content.labels.assign(labels.values.begin(), labels.values.end());
  }
  return array_set(path.string(), std::move(content).with(std::move(images.values)), options);
}

}  // namespace fluxion
