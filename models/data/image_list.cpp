#include "models/data/image_list.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "engine/error.h"
#include "models/data/image_tree.h"
#include "models/data/split_names.h"

namespace fluxion {

namespace {

namespace fs = std::filesystem;

using Trees = std::vector<const ImageTree*>;

// The sub-folders that hold images of their own: of those that links lead to again, the first.
Trees own_folders(const ImageTree& tree) {
  Trees result;
  for (const ImageTree& below : tree.below)
    if (!below.read_before) result.push_back(&below);
  return result;
}

// Sub-folders by what their names say.
struct Roles {
  Trees training, held_out, perhaps_held_out, others;

  explicit Roles(const Trees& folders) {
    for (const ImageTree* folder : folders) switch (part_named(folder->name)) {
        case PartName::training:
          training.push_back(folder);
          break;
        case PartName::held_out:
          held_out.push_back(folder);
          break;
        case PartName::perhaps_held_out:
          perhaps_held_out.push_back(folder);
          break;
        case PartName::none:
          if (!folder->read_before) others.push_back(folder);
          break;
      }
  }
  // One part may be a link to another.
  explicit Roles(const ImageTree& tree) : Roles(all_folders(tree)) {}

  static Trees all_folders(const ImageTree& tree) {
    Trees result;
    for (const ImageTree& below : tree.below) result.push_back(&below);
    return result;
  }

  Trees all_held_out() const {
    Trees result = held_out;
    result.insert(result.end(), perhaps_held_out.begin(), perhaps_held_out.end());
    std::stable_sort(result.begin(), result.end(), [](const ImageTree* a, const ImageTree* b) {
      return held_out_rank(a->name) < held_out_rank(b->name);
    });
    return result;
  }
  bool are_splits() const {
    return training.size() == 1 && held_out.size() + perhaps_held_out.size() > 0;
  }
};

std::string names_of(const Trees& trees) {
  std::vector<std::string> names;
  for (const ImageTree* tree : trees) names.push_back(tree->name);
  return class_list(names);
}

// The splits lie below the classes: cat/train, cat/test, dog/train, ...
bool is_divided(const ImageTree& tree) {
  const Roles roles(tree);
  return tree.images.empty() && roles.are_splits() && roles.others.empty();
}
bool splits_below_classes(const ImageTree& tree) {
  const Trees folders = own_folders(tree);
  return folders.size() >= 2 &&
         std::ranges::all_of(folders, [](const ImageTree* one) { return is_divided(*one); });
}

// Throws where folders may be parts or classes, and `tree` is neither divided by name nor a folder
// in a folder.
void refuse_unclear(const ImageTree& tree, std::vector<std::string>& warnings) {
  const Trees folders = own_folders(tree);
  const Roles roles(folders);
  const Trees held_out = roles.all_held_out();
  const std::string start = "data set " + tree.path.string() + ": ";
  if (!tree.images.empty() && !folders.empty())
    throw Error(start + "holds an image without a class, " +
                tree.images.front().filename().string() + ", beside the sub-folders " +
                names_of(folders) + "; move it, or leave the classes out (--no-labels)");
  if (roles.training.size() > 1)
    throw Error(start + "holds more than one training part, " + names_of(roles.training) +
                "; give the path of one");
  if (roles.training.empty() && roles.others.empty() && held_out.size() > 1)
    throw Error(start + "holds the parts " + names_of(held_out) +
                " and no training part, such as train, beside them; rename one, or give its path");
  if (roles.training.size() == 1 && !roles.others.empty()) {
    const ImageTree& training = *roles.training.front();
    if (training.below.size() >= 2)
      throw Error(start + "it is not clear whether " + training.name +
                  " is the training part or a class beside " + names_of(roles.others) +
                  "; give the path of the part, or rename the class");
    warnings.push_back(tree.path.string() + ": " + training.name +
                       " is taken for a class, as there is no test or val beside it");
  }
  if (roles.training.empty() && !roles.others.empty()) {
    for (const ImageTree* part : held_out) {
      if (part->below.size() >= 2 || std::ranges::count(roles.held_out, part) > 0)
        throw Error(start + "it is not clear whether " + part->name +
                    " is a held-out part or a class beside " + names_of(roles.others) +
                    "; parts lie beside each other, as train and test do: move the classes into "
                    "a folder train, or rename the class");
      warnings.push_back(tree.path.string() + ": " + part->name +
                         " is taken for a class, as there is no train beside it");
    }
  }
  const auto divided =
      std::ranges::count_if(folders, [](const ImageTree* one) { return is_divided(*one); });
  if (folders.size() >= 2 && divided > 0 && static_cast<std::size_t>(divided) < folders.size())
    throw Error(start + "some of its sub-folders " + names_of(folders) +
                " are divided into parts such as train and test, others are not");
}

// All sub-folders have the same sub-folders: those may be what somebody means by classes.
void doubt_classes(const ImageTree& tree, std::vector<std::string>& warnings) {
  const Trees folders = own_folders(tree);
  const std::string below = names_of(own_folders(*folders.front()));
  if (own_folders(*folders.front()).size() < 2 ||
      !std::ranges::all_of(folders, [&](const ImageTree* one) {
        return one->images.empty() && names_of(own_folders(*one)) == below;
      }))
    return;
  warnings.push_back(tree.path.string() + ": the classes are " + names_of(folders) +
                     ", each with the sub-folders " + below +
                     "; if those are the classes, give the path of one folder that holds them");
}

// Down while there is one way, and not into a class that is known already.
const ImageTree& only_way(const ImageTree& tree, const std::set<std::string>& classes,
                          std::vector<std::string>* warnings = nullptr) {
  const ImageTree* here = &tree;
  while (true) {
    const Trees folders = own_folders(*here);
    if (!here->images.empty() || folders.size() != 1 || own_folders(*folders.front()).empty() ||
        Roles(*here).are_splits() || classes.contains(folders.front()->name))
      return *here;
    if (warnings && !here->empty.empty())
      warnings->push_back(here->path.string() + ": " + class_list(here->empty) +
                          " left out, without images; the classes are looked for in " +
                          folders.front()->name);
    here = folders.front();
  }
}

struct Division {
  const ImageTree* training = nullptr;  // the whole, if there is no held-out part
  const ImageTree* held_out = nullptr;
  std::vector<std::string> warnings;
};

Division divide(const ImageTree& root) {
  const ImageTree& here = only_way(root, {});
  const Roles roles(here);
  if (!roles.are_splits()) return {&root, nullptr, {}};
  const Trees held_out = roles.all_held_out();
  Division result{roles.training.front(), held_out.front(), {}};
  Trees unused(held_out.begin() + 1, held_out.end());
  unused.insert(unused.end(), roles.others.begin(), roles.others.end());
  std::string left_out = unused.empty() ? "" : names_of(unused);
  if (!here.images.empty())
    left_out += (left_out.empty() ? "" : " and ") + here.images.front().filename().string() +
                (here.images.size() > 1 ? ", ..." : "");
  if (!left_out.empty())
    result.warnings.push_back(here.path.string() + ": " + left_out +
                              " left out, beside the parts " + result.training->name + " and " +
                              result.held_out->name);
  return result;
}

struct ClassFolder {
  std::string name;
  std::vector<fs::path> images;
};

std::vector<ClassFolder> class_folders(const ImageTree& tree, Split split, bool divided) {
  std::vector<ClassFolder> result;
  for (const ImageTree* folder : own_folders(tree)) {
    ClassFolder one{folder->name, {}};
    const Roles roles(*folder);
    collect_images(!divided                ? *folder
                   : split == Split::train ? *roles.training.front()
                                           : *roles.all_held_out().front(),
                   one.images);
    if (!one.images.empty()) result.push_back(std::move(one));
  }
  return result;
}

void warn_of_empty(const ImageTree& tree, const std::vector<ClassFolder>& classes,
                   std::vector<std::string>& warnings) {
  std::vector<std::string> empty = tree.empty;
  for (const ImageTree* folder : own_folders(tree))
    if (std::ranges::none_of(classes,
                             [&](const ClassFolder& one) { return one.name == folder->name; }))
      empty.push_back(folder->name);
  if (empty.empty() || classes.empty()) return;
  warnings.push_back(tree.path.string() + ": no class without images: " + class_list(empty) +
                     (classes.size() == 1 ? "; only " + classes.front().name +
                                                " is left, and one class tells nothing apart"
                                          : ""));
}

// Links may lead from one part into another: each is then read for itself.
bool holds_links_back(const ImageTree& tree) {
  return tree.read_before || std::ranges::any_of(tree.below, holds_links_back);
}

// Names with runs of digits compared as numbers, other characters as bytes.
bool less_by_number(const std::string& a, const std::string& b) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto byte = [](char c) { return static_cast<unsigned char>(c); };
  // The digits from `at` on, without leading zeros; `at` moves behind them.
  const auto number = [&](const std::string& text, std::size_t& at) {
    while (at < text.size() && text[at] == '0') ++at;
    const std::size_t begin = at;
    while (at < text.size() && is_digit(text[at])) ++at;
    return std::string_view(text).substr(begin, at - begin);
  };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const std::string_view of_a = number(a, i), of_b = number(b, j);
      if (of_a.size() != of_b.size()) return of_a.size() < of_b.size();
      if (of_a != of_b) return of_a < of_b;
    } else {
      if (a[i] != b[j]) return byte(a[i]) < byte(b[j]);
      ++i, ++j;
    }
  }
  if (i < a.size() || j < b.size()) return i == a.size();
  return a < b;  // 01 before 1
}

}  // namespace

void sort_by_number(std::vector<ListedImage>& images) {
  std::ranges::stable_sort(images, [](const ListedImage& a, const ListedImage& b) {
    if (a.label != b.label) return a.label < b.label;
    return std::ranges::lexicographical_compare(
        a.path, b.path, [](const fs::path& one, const fs::path& other) {
          return less_by_number(one.native(), other.native());
        });
  });
}

ImageList list_images(const fs::path& folder, Split split, bool labels) {
  const ImageTree root = read_image_tree(folder);
  const Division division = divide(root);
  const bool divided_below =
      !division.held_out && splits_below_classes(only_way(*division.training, {}));
  if (split == Split::test && !division.held_out && !divided_below)
    throw NoTestPart("data set " + folder.string() +
                     ": has no held-out part (sub-folders train and test, or train and val)");

  const bool beside_training = split == Split::test && division.held_out;
  const ImageTree* part = beside_training ? division.held_out : division.training;
  ImageTree again;
  if (division.held_out && holds_links_back(*part)) {
    again = read_image_tree(part->path);
    part = &again;
  }
  ImageList list;
  list.part = part->path;
  list.warnings = division.warnings;
  std::set<std::string> known;
  if (beside_training)
    for (const ImageTree* one : own_folders(only_way(*division.training, {})))
      known.insert(one->name);
  const ImageTree& level = only_way(*part, known, labels ? &list.warnings : nullptr);
  std::vector<ClassFolder> classes = class_folders(level, split, divided_below);
  if (labels) {
    if (!divided_below) refuse_unclear(level, list.warnings);
    warn_of_empty(level, classes, list.warnings);
    // One folder alone tells nothing apart, unless there are others in the training part.
    if (classes.size() >= 2 || (classes.size() == 1 && known.contains(classes.front().name))) {
      if (!divided_below) doubt_classes(level, list.warnings);
      for (const ClassFolder& one : classes) list.class_names.push_back(one.name);
    }
  }
  for (std::string& line : warnings_of(*part)) list.warnings.push_back(std::move(line));

  if (list.class_names.empty() && !divided_below) {
    std::vector<fs::path> images = part->images;
    for (const ImageTree& below : part->below) collect_images(below, images);
    for (fs::path& path : images) list.images.push_back({std::move(path), 0});
  } else {
    std::int32_t label = 0;
    for (ClassFolder& one : classes) {
      for (fs::path& path : one.images)
        list.images.push_back({std::move(path), list.class_names.empty() ? 0 : label});
      ++label;
    }
  }
  if (list.images.empty())
    throw Error("data set " + part->path.string() +
                ": holds no images: looked for .png, .jpg and .jpeg files, in sub-folders too, for "
                "MNIST's train-images-idx3-ubyte[.gz] and for"
                " CIFAR-10's data_batch_1.bin" +
                (part->ignored_examples.empty()
                     ? ""
                     : "; it holds " + class_list(part->ignored_examples) +
                           " (an array is given by its own path)"));
  return list;
}

}  // namespace fluxion
