#include "models/data/image_tree.h"

#include <algorithm>
#include <array>
#include <set>
#include <system_error>

#include "engine/error.h"
#include "models/files/lower_case.h"

namespace fluxion {

namespace {

namespace fs = std::filesystem;

constexpr int deepest = 64;
constexpr std::size_t examples = 3;
// What other programs leave behind.
constexpr std::array foreign_folders = {"__MACOSX", "@eaDir", "lost+found", "__pycache__"};
// What the system makes up as it is read.
constexpr std::array system_folders = {"/proc", "/sys"};

// Whether `inner`, both without links, lies in `outer` or is it.
bool lies_in(const fs::path& inner, const fs::path& outer) {
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

class TreeReader {
 public:
  ImageTree read(const fs::path& folder, int depth) {
    ImageTree tree;
    tree.path = folder;
    tree.name = folder.filename().string();
    for (const fs::directory_entry& entry : entries(folder, depth, tree)) {
      std::error_code error;
      const std::string name = entry.path().filename().string();
      if (entry.is_directory(error)) {
        if (std::ranges::count(foreign_folders, name) > 0) continue;
        ImageTree below = read(entry.path(), depth + 1);
        const bool holds_images =
            below.read_before || !below.images.empty() || !below.below.empty();
        if (holds_images) {
          tree.below.push_back(std::move(below));
          continue;
        }
        tree.empty.push_back(name);
        tree.ignored += below.ignored;
        for (std::string& example : below.ignored_examples)
          tree.ignored_examples.push_back(std::move(example));
        for (std::string& line : below.warnings) tree.warnings.push_back(std::move(line));
      } else if (entry.is_regular_file(error) && is_image_file(entry.path())) {
        tree.images.push_back(entry.path());
      } else {
        ++tree.ignored;
        if (tree.ignored_examples.size() < examples) tree.ignored_examples.push_back(name);
      }
    }
    return tree;
  }

 private:
  std::vector<fs::directory_entry> entries(const fs::path& folder, int depth, ImageTree& tree) {
    std::vector<fs::directory_entry> result;
    std::error_code error;
    const fs::path real = fs::canonical(folder, error);
    if (depth == 0) root_ = real;
    const bool around = depth > 0 && !error && real != root_ && lies_in(root_, real),
               made_up = depth > 0 && !error &&
                         std::ranges::any_of(system_folders, [&](const char*system) {
                           return lies_in(real, system) && !lies_in(root_, system);
                         });
    if (around || made_up) {
      tree.warnings.push_back(folder.string() + ": left out, a link to " +
                              (around ? "a folder that holds this one" : "files of the system"));
      return result;
    }
    if (!error && !seen_.insert(real.native()).second) {
      tree.read_before = true;
      return result;
    }
    if (depth > deepest) {
      tree.warnings.push_back(folder.string() + ": left out, " + std::to_string(deepest) +
                              " folders deep");
      return result;
    }
    fs::directory_iterator place(folder, error);
    for (; !error && place != fs::directory_iterator(); place.increment(error))
      if (!place->path().filename().native().starts_with('.')) result.push_back(*place);
    if (error && depth == 0)
      throw IoError("reading the folder " + folder.string() + ": " + error.message());
    if (error) tree.warnings.push_back(folder.string() + ": left out: " + error.message());
    std::sort(result.begin(), result.end(),
              [](const auto& a, const auto& b) { return a.path().native() < b.path().native(); });
    return result;
  }

  std::set<std::string> seen_;
  fs::path root_;  // without links
};

void add_ignored(const ImageTree& tree, std::size_t& count, std::vector<std::string>& names,
                 std::vector<std::string>& lines) {
  lines.insert(lines.end(), tree.warnings.begin(), tree.warnings.end());
  count += tree.ignored;
  names.insert(names.end(), tree.ignored_examples.begin(), tree.ignored_examples.end());
  for (const ImageTree& below : tree.below) add_ignored(below, count, names, lines);
}

}  // namespace

bool is_image_file(const fs::path& path) {
  const std::string ending = lower_case(path.extension().string());
  return ending == ".png" || ending == ".jpg" || ending == ".jpeg";
}

ImageTree read_image_tree(const fs::path& folder) { return TreeReader().read(folder, 0); }

void collect_images(const ImageTree& tree, std::vector<fs::path>& images) {
  auto image = tree.images.begin();
  for (const ImageTree& below : tree.below) {
    for (; image != tree.images.end() && image->native() < below.path.native(); ++image)
      images.push_back(*image);
    collect_images(below, images);
  }
  images.insert(images.end(), image, tree.images.end());
}

std::vector<std::string> warnings_of(const ImageTree& tree) {
  std::size_t count = 0;
  std::vector<std::string> names, lines;
  add_ignored(tree, count, names, lines);
  if (count == 0) return lines;
  std::string text = tree.path.string() + ": " + std::to_string(count) +
                     (count == 1 ? " file that is" : " files that are") +
                     " no PNG or JPEG left out: ";
  for (std::size_t i = 0; i < std::min(names.size(), examples); ++i)
    text += (i == 0 ? "" : ", ") + names[i];
  lines.push_back(text + (count > examples ? ", ..." : ""));
  return lines;
}

}  // namespace fluxion
