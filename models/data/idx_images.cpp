#include "models/data/idx_images.h"

#include <utility>

#include "engine/error.h"
#include "models/data/arrays.h"
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

  SourceArray images = SourceArray::of(read_idx(image_file));
  const Shape& shape = images.type.shape;
  if (shape.rank() != 3 && !(shape.rank() == 4 && (shape[3] == 1 || shape[3] == 3)))
    throw FormatError(
        image_file.string() + ": images have axes [count, rows, columns], this file has " +
        to_string(shape) + (shape.rank() == 1 ? ": labels? Give the file of the images" : ""));
  if (shape.elements() == 0)
    throw FormatError(image_file.string() + ": holds no images: " + to_string(shape));
  ArrayContent content = sample_content(image_file.string(), std::move(images));
  if (!label_file.empty()) {
    const std::string name = label_file.string();
    const SourceArray labels = SourceArray::of(read_idx(label_file));
    if (labels.type.shape != Shape{content.count} && labels.type.shape != Shape{content.count, 1})
      throw FormatError(name + ": " + std::to_string(content.count) + " images need labels " +
                        to_string(Shape{content.count}) + ", got " + to_string(labels.type.shape));
    content.labels = labels_in(name, labels, content.count);
  }
  return array_set(path.string(), std::move(content), options);
}

}  // namespace fluxion
