#include "models/data/image_list.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <string_view>
#include <system_error>

#include "engine/error.h"

namespace fluxion {

namespace {

namespace fs = std::filesystem;

constexpr int deepest = 64;
constexpr std::size_t examples = 3;

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

bool named_as_image(const fs::path& path) {
  std::string ending = path.extension().string();
  for (char& c : ending) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return ending == ".png" || ending == ".jpg" || ending == ".jpeg";
}

// What a walk comes across.
class FolderScan {
 public:
  // All images below the folder.
  void collect(const fs::path& folder, std::vector<fs::path>& images, int depth = 0) {
    for (const fs::directory_entry& entry : entries(folder, depth)) {
      std::error_code error;
      if (entry.is_directory(error)) {
        collect(entry.path(), images, depth + 1);
      } else {
        file(entry, images);
      }
    }
  }

  // An image, or one file more that is none.
  void file(const fs::directory_entry& entry, std::vector<fs::path>& images) {
    std::error_code error;
    if (entry.is_regular_file(error) && named_as_image(entry.path())) {
      images.push_back(entry.path());
    } else {
      if (ignored_++ < examples)
        ignored_names_ += (ignored_names_.empty() ? "" : ", ") + entry.path().filename().string();
    }
  }

  // By name, without what is hidden. Empty where links lead to the folder a second time.
  std::vector<fs::directory_entry> entries(const fs::path& folder, int depth) {
    std::vector<fs::directory_entry> result;
    std::error_code error;
    const fs::path real = fs::canonical(folder, error);
    if (!error && !seen_.insert(real.native()).second) return result;
    if (depth > deepest) {
      warnings_.push_back(folder.string() + ": left out, " + std::to_string(deepest) +
                          " folders deep");
      return result;
    }
    fs::directory_iterator place(folder, error);
    for (; !error && place != fs::directory_iterator(); place.increment(error))
      if (!place->path().filename().native().starts_with('.')) result.push_back(*place);
    if (error && depth == 0)
      throw IoError("reading the folder " + folder.string() + ": " + error.message());
    if (error) warnings_.push_back(folder.string() + ": left out: " + error.message());
    std::sort(result.begin(), result.end(),
              [](const auto& a, const auto& b) { return a.path().native() < b.path().native(); });
    return result;
  }

  std::vector<std::string> warnings(const fs::path& folder) const {
    std::vector<std::string> result = warnings_;
    if (ignored_ > 0)
      result.push_back(folder.string() + ": " + std::to_string(ignored_) +
                       (ignored_ == 1 ? " file that is" : " files that are") +
                       " no PNG or JPEG left out: " + ignored_names_ +
                       (ignored_ > examples ? ", ..." : ""));
    return result;
  }

 private:
  std::set<std::string> seen_;
  std::size_t ignored_ = 0;
  std::string ignored_names_;
  std::vector<std::string> warnings_;
};

struct ClassFolder {
  std::string name;
  std::vector<fs::path> images;
};

// The images of a folder itself, and those below each of its sub-folders that has any.
struct Tree {
  std::vector<fs::path> loose;
  std::vector<ClassFolder> classes;
  std::vector<std::string> warnings;

  explicit Tree(const fs::path& folder) {
    FolderScan scan;
    for (const fs::directory_entry& entry : scan.entries(folder, 0)) {
      std::error_code error;
      if (!entry.is_directory(error)) {
        scan.file(entry, loose);
        continue;
      }
      ClassFolder below{entry.path().filename().string(), {}};
      scan.collect(entry.path(), below.images, 1);
      if (!below.images.empty()) classes.push_back(std::move(below));
    }
    warnings = scan.warnings(folder);
  }

  // One folder alone tells nothing apart.
  std::vector<std::string> class_names() const {
    std::vector<std::string> names;
    if (classes.size() >= 2)
      for (const ClassFolder& one : classes) names.push_back(one.name);
    return names;
  }
};

fs::path held_out_folder(const fs::path& folder) {
  if (!is_folder(folder / "train")) return {};
  for (const char* const name : {"test", "val", "valid", "validation"})
    if (is_folder(folder / name)) return folder / name;
  return {};
}

}  // namespace

ImageList list_images(const fs::path& folder, Split split, bool labels) {
  const fs::path held_out = held_out_folder(folder);
  if (split == Split::test && held_out.empty())
    throw NoTestPart("data set " + folder.string() +
                     ": has no held-out part (sub-folders train and test, or train and val)");
  const fs::path part = held_out.empty()        ? folder
                        : split == Split::train ? folder / "train"
                                                : held_out;
  Tree tree(part);

  ImageList list;
  list.warnings = tree.warnings;
  if (labels)
    list.class_names =
        split == Split::train ? tree.class_names() : Tree(folder / "train").class_names();
  if (!list.class_names.empty() && !tree.loose.empty())
    throw Error("data set " + part.string() + ": holds an image without a class, " +
                tree.loose.front().filename().string() +
                ", beside the sub-folders that are classes; move it, or leave the classes out "
                "(--no-labels)");

  for (fs::path& path : tree.loose) list.images.push_back({std::move(path), 0});
  for (ClassFolder& one : tree.classes) {
    std::int32_t label = 0;
    if (!list.class_names.empty()) {
      const auto at = std::find(list.class_names.begin(), list.class_names.end(), one.name);
      if (at == list.class_names.end())
        throw Error("data set " + part.string() + ": class " + one.name +
                    " is not among those of train");
      label = static_cast<std::int32_t>(at - list.class_names.begin());
    }
    for (fs::path& path : one.images) list.images.push_back({std::move(path), label});
  }
  if (list.images.empty())
    throw Error("data set " + part.string() +
                ": holds no images: looked for .png, .jpg and .jpeg files, in sub-folders too, for "
                "MNIST's train-images-idx3-ubyte[.gz] and for"
                " CIFAR-10's data_batch_1.bin");
  return list;
}

}  // namespace fluxion
