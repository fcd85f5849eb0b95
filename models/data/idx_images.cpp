#include "models/data/idx_images.h"

#include <algorithm>
#include <utility>

#include "engine/error.h"
#include "models/data/array_set.h"
#include "models/data/arrays.h"
#include "models/data/image_tree.h"
#include "models/data/labels_beside.h"
#include "models/data/split_names.h"
#include "models/files/idx.h"

namespace fluxion {

namespace {

namespace fs = std::filesystem;

// An IDX file of a folder by what its name says.
struct NamedIdxFile {
  fs::path path;
  ArrayFileName name;
  PartName part = PartName::none;
};

std::vector<NamedIdxFile> idx_files(const fs::path& folder) {
  std::vector<NamedIdxFile> result;
  std::error_code error;
  fs::directory_iterator place(folder, error);
  for (; !error && place != fs::directory_iterator(); place.increment(error)) {
    std::error_code unknown;
    const fs::path file = folder / place->path().filename();
    if (file.filename().native().starts_with('.') || is_image_file(file) ||
        !fs::is_regular_file(file, unknown))
      continue;
    NamedIdxFile one{file, array_file_name(file)};
    if (!one.name.idx || one.name.images == one.name.labels) continue;
    for (const std::string& word : one.name.words)
      if (const PartName part = part_named(word); part != PartName::none) one.part = part;
    result.push_back(std::move(one));
  }
  std::sort(result.begin(), result.end(),
            [](const NamedIdxFile& a, const NamedIdxFile& b) { return a.path < b.path; });
  return result;
}

std::string expected(const fs::path& folder, Split split, const std::string& kind) {
  const std::string name = std::string(split == Split::train ? "train" : "t10k") + "-" + kind;
  return (folder / (name + "-ubyte")).string() + "[.gz]";
}

// The images of a part. Throws where there are none, or several sets.
fs::path images_of(const fs::path& folder, Split split) {
  std::vector<NamedIdxFile> found;
  for (NamedIdxFile& file : idx_files(folder)) {
    const bool training = file.part == PartName::training || file.part == PartName::none;
    if (file.name.images && training == (split == Split::train)) found.push_back(std::move(file));
  }
  if (found.empty()) {
    const std::string missing =
        "reading images: " + expected(folder, split, "images-idx3") + " is not there";
    if (split == Split::test) throw NoTestPart(missing);
    throw IoError(missing);
  }
  for (const NamedIdxFile& file : found)
    if (file.name != found.front().name)
      throw Error("reading images: " + folder.string() + " holds several sets, " +
                  found.front().path.filename().string() + " and " + file.path.filename().string() +
                  "; give the path of one of these files");
  return found.front().path;  // of a plain and a compressed one, the plain
}

// What the labels of this file would be called.
std::string expected_labels(const fs::path& images) {
  std::string name = images.filename().string();
  const auto replace = [&](const std::string& from, const std::string& to) {
    if (const auto at = name.find(from); at != name.npos) name.replace(at, from.size(), to);
  };
  replace("images", "labels");
  replace("idx3", "idx1");
  return (images.parent_path() / name).string();
}

}  // namespace

bool is_idx_folder(const fs::path& folder) { return !idx_files(folder).empty(); }

std::unique_ptr<DataSet> idx_images(const fs::path& path, const DataSetOptions& options) {
  std::error_code error;
  const bool folder = fs::is_directory(path, error);
  if (!folder && options.split == Split::test)
    throw NoTestPart("data set " + path.string() +
                     ": one file has no held-out part; give its folder, or the path of another");
  const fs::path image_file = folder ? images_of(path, options.split) : path;
  SourceArray images = SourceArray::of(read_idx(image_file, options.memory_limit));
  const Shape& shape = images.type.shape;
  if (shape.rank() != 3 && !(shape.rank() == 4 && (shape[3] == 1 || shape[3] == 3)))
    throw FormatError(
        image_file.string() + ": images have axes [count, rows, columns], this file has " +
        to_string(shape) + (shape.rank() == 1 ? ": labels? Give the file of the images" : ""));
  if (shape.elements() == 0)
    throw FormatError(image_file.string() + ": holds no images: " + to_string(shape));
  ArrayContent content =
      sample_content(image_file.string(), std::move(images), options.memory_limit);
  if (options.labels) {
    const fs::path label_file = labels_beside(image_file, content.count, options.memory_limit);
    const ArrayFileName name = array_file_name(image_file);
    if (!label_file.empty()) {
      content.labels = read_labels(label_file, content.count, options.memory_limit);
    } else if (folder || (name.idx && name.images)) {
      throw IoError("reading images: the labels " + expected_labels(image_file) +
                    " are not there (--no-labels takes the images without)");
    }
  }
  return array_set(path.string(), std::move(content), options);
}

}  // namespace fluxion
