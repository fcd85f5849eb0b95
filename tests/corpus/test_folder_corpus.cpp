// Folder trees and label files as people have them, each with its right outcome: classes and
// counts, or the words of a refusal.
#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "engine/platform/file.h"
#include "models/data/data_set.h"
#include "models/files/gz.h"
#include "models/files/npy.h"
#include "tests/catch.h"
#include "tests/data/pictures.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// What lies where, separated by spaces:
//   a/1.png         a picture        a/1.png!         one that no decoder reads
//   a/              an empty folder  b->a             a link
//   x.npy:4         four pictures    y.npy:0,1,1,2    labels; in IDX and gzip too, by the name
//   notes.txt       a text
struct Arrangement {
  std::string tree;
  std::string data;                       // the path given, below the tree's root
  std::string classes;                    // their names; "-" for none; "?": refused
  std::int64_t train = 0;                 // samples
  std::optional<std::int64_t> test = {};  // of the held-out part; empty: there is none
  std::string says = {};                  // in a warning, or in the refusal
};

const std::vector<Arrangement>& arrangements() {
  static const std::vector<Arrangement> table = {
      // Classes, and none.
      {"a/1.png a/2.png b/1.png", "", "a b", 3},
      {"1.png 2.png", "", "-", 2},
      {"all/1.png all/2.png", "", "-", 2},
      {"10/1.png 2/1.png 1/1.png", "", "1 10 2", 3},
      {"cat/in/1.png cat/out/2.png dog/1.png", "", "cat dog", 3},
      {"a/1.PNG b/1.png a/.hidden.png .x/1.png", "", "a b", 2},
      {"a/1.png b/1.png __MACOSX/a/1.png", "", "a b", 2},
      {"a/1.png b/1.png notes.txt", "", "a b", 2, {}, "notes.txt"},
      {"a/1.png b/1.png c/", "", "a b", 2, {}, "c"},
      {"a/1.png b/1.png c/readme.txt", "", "a b", 2, {}, "no class without images: c"},
      {"a/1.png b/", "", "-", 1, {}, "one class tells nothing apart"},
      {"a/1.png b/1.png c/1.png! c/2.png!", "", "a b", 2, {}, "images of class c"},
      {"a/1.png b/1.png! b/2.png!", "", "-", 1, {}, "only class a is left"},
      {"a/1.png a/2.png! b/1.png", "", "a b", 2, {}, "2.png"},
      {"a/1.png b/1.png c->a", "", "a b", 2},
      {"a/1.png b/1.png loop->.", "", "a b", 2},
      // Images beside sub-folders have no class.
      {"1.png a/1.png b/1.png", "", "?", 0, {}, "1.png"},
      {"1.png a/1.png", "", "?", 0, {}, "--no-labels"},
      {"train/1.png train/a/1.png train/b/1.png test/a/1.png", "", "?", 0, {}, "train"},
      // One folder too high.
      {"data/a/1.png data/b/1.png", "", "a b", 2},
      {"x/y/z/a/1.png x/y/z/b/1.png", "", "a b", 2},
      {"train/a/1.png train/b/1.png", "", "a b", 2},
      {"test/a/1.png test/b/1.png", "", "a b", 2},
      {"set/train/a/1.png set/train/b/1.png set/test/b/1.png", "", "a b", 2, 1},
      {"images/a/1.png images/b/1.png labels/a.txt", "", "a b", 2, {}, "labels"},
      {"train/images/a/1.png train/images/b/1.png test/images/b/1.png", "", "a b", 2, 1},
      // Words for the parts.
      {"train/a/1.png train/b/1.png test/b/1.png", "", "a b", 2, 1},
      {"Train/a/1.png Train/b/1.png Test/a/1.png", "", "a b", 2, 1},
      {"TRAIN/a/1.png TRAIN/b/1.png VAL/a/1.png", "", "a b", 2, 1},
      {"train/a/1.png train/b/1.png dev/a/1.png dev/b/1.png", "", "a b", 2, 2},
      {"train/a/1.png train/b/1.png eval/a/1.png", "", "a b", 2, 1},
      {"training/a/1.png training/b/1.png testing/a/1.png", "", "a b", 2, 1},
      {"training_set/a/1.png training_set/b/1.png test_set/b/1.png", "", "a b", 2, 1},
      {"train2017/a/1.png train2017/b/1.png val2017/b/1.png", "", "a b", 2, 1},
      {"Training-Images/a/1.png Training-Images/b/1.png Validation-Images/b/1.png", "", "a b", 2,
       1},
      {"train/a/1.png train/b/1.png valid/a/1.png", "", "a b", 2, 1},
      {"train/a/1.png train/b/1.png test/a/1.png val/a/1.png val/b/1.png", "", "a b", 2, 1, "val"},
      {"train/a/1.png train/b/1.png test/a/1.png extra/c/1.png", "", "a b", 2, 1, "extra"},
      {"train/1.png train/2.png test/1.png", "", "-", 2, 1},
      {"train/a/1.png train/b/1.png train/c/1.png test/c/1.png", "", "a b c", 3, 1},
      {"train/a/1.png train/b/1.png test->train", "", "a b", 2, 2},
      {"cat/train/1.png cat/test/2.png dog/train/1.png dog/test/2.png", "", "cat dog", 2, 2},
      // Words that may mean either.
      {"test/a/1.png val/a/1.png", "", "?", 0, {}, "no training part"},
      {"Train/a/1.png training/a/1.png", "", "?", 0, {}, "more than one training part"},
      {"train/a/1.png train/b/1.png unlabelled/1.png", "", "?", 0, {}, "training part or a class"},
      {"cat/1.png dog/1.png test/1.png", "", "?", 0, {}, "held-out part or a class"},
      {"cat/1.png dog/1.png val/cat/1.png val/dog/1.png", "", "?", 0, {}, "held-out part"},
      {"cat/train/1.png cat/test/2.png dog/1.png", "", "?", 0, {}, "divided into parts"},
      {"car/1.png plane/1.png train/1.png", "", "car plane train", 3, {}, "taken for a class"},
      {"invalid/1.png valid/1.png", "", "invalid valid", 2, {}, "taken for a class"},
      {"fold1/a/1.png fold1/b/1.png fold2/a/1.png fold2/b/1.png",
       "",
       "fold1 fold2",
       4,
       {},
       "if those are the classes"},
      // Nothing there.
      {"a/", "", "?", 0, {}, "holds no images"},
      {"x_train.npy:3 y_train.npy:0,1,2", "", "?", 0, {}, "holds x_train.npy"},
      // IDX: names as they come, plain and compressed, whole folders and single files.
      {"train-images-idx3-ubyte:3 train-labels-idx1-ubyte:0,1,2", "", "0 1 2", 3},
      {"train-images.idx3-ubyte:3 train-labels.idx1-ubyte:0,1,2 t10k-images.idx3-ubyte:2 "
       "t10k-labels.idx1-ubyte:0,2",
       "", "0 1 2", 3, 2},
      {"train-images.idx3-ubyte:3 train-labels.idx1-ubyte:0,1,2", "train-images.idx3-ubyte",
       "0 1 2", 3},
      {"train-images-idx3-ubyte.gz:3 train-labels-idx1-ubyte.gz:0,1,2",
       "train-images-idx3-ubyte.gz", "0 1 2", 3},
      {"train-images-idx3-ubyte:3 train-labels-idx1-ubyte.gz:0,1,2", "train-images-idx3-ubyte",
       "0 1 2", 3},
      {"train-images-idx3-ubyte:3 train-labels.idx1-ubyte:0,1,2", "train-images-idx3-ubyte",
       "0 1 2", 3},
      {"emnist-letters-train-images-idx3-ubyte:3 emnist-letters-train-labels-idx1-ubyte:1,2,3 "
       "emnist-letters-test-images-idx3-ubyte:1 emnist-letters-test-labels-idx1-ubyte:2",
       "", "1 2 3", 3, 1},
      {"emnist-letters-train-images-idx3-ubyte:1 emnist-digits-train-images-idx3-ubyte:1",
       "",
       "?",
       0,
       {},
       "several sets"},
      {"MNIST/raw/train-images-idx3-ubyte:2 MNIST/raw/train-labels-idx1-ubyte:0,1", "", "0 1", 2},
      {"train-images-idx3-ubyte:3", "", "?", 0, {}, "train-labels-idx1-ubyte"},
      {"train-images-idx3-ubyte:3", "train-images-idx3-ubyte", "?", 0, {}, "--no-labels"},
      {"train-images.idx3-ubyte:3",
       "train-images.idx3-ubyte",
       "?",
       0,
       {},
       "train-labels.idx1-ubyte"},
      {"digits:3", "digits", "-", 3},
      {"images:3 labels:0,1,0", "images", "0 1", 3},
      {"train-images-idx3-ubyte:3 train-labels-idx1-ubyte:0,1", "", "?", 0, {}, "3 samples"},
      // Labels from 1, and gaps: classes are the numbers that occur.
      {"train-images-idx3-ubyte:3 train-labels-idx1-ubyte:1,2,3", "", "1 2 3", 3},
      {"x.npy:4 x.labels.npy:0,1,900,1", "x.npy", "0 1 900", 4},
      {"x.npy:2 x.labels.npy:7,7", "x.npy", "7", 2},
      // Arrays with labels beside them.
      {"x_train.npy:3 y_train.npy:0,1,2 x_test.npy:1 y_test.npy:0", "x_train.npy", "0 1 2", 3},
      {"X_train.npy:3 Y_train.npy:0,1,2", "X_train.npy", "0 1 2", 3},
      {"xtrain.npy:3 ytrain.npy:0,1,2", "xtrain.npy", "0 1 2", 3},
      {"trainX.npy:3 trainY.npy:0,1,2", "trainX.npy", "0 1 2", 3},
      {"images.npy:3 labels.npy:0,1,2", "images.npy", "0 1 2", 3},
      {"train_images.npy:3 train_labels.npy:0,1,2", "train_images.npy", "0 1 2", 3},
      {"faces.npy:3 faces_labels.npy:0,1,2", "faces.npy", "0 1 2", 3},
      {"faces.npy:3 faces-targets.npy:2,1,2", "faces.npy", "1 2", 3},
      {"faces.npy:3 faces.labels.npy:0,1,2 faces_labels.npy:0,0,0", "faces.npy", "0 1 2", 3},
      {"faces.npy:3 labels_of_faces.npy:0,1,2", "faces.npy", "0 1 2", 3},
      {"faces.npy:3 others.labels.npy:0,1,2", "faces.npy", "-", 3},
      {"faces.npy:3 labels.npy:0,1", "faces.npy", "-", 3},
      {"faces.npy:3 labels.npy:0,1,2", "faces.npy", "?", 0, {}, "faces.labels.npy"},
      {"x.npy:3 y.npy:0,1,2 labels.npy:0,1,2", "x.npy", "?", 0, {}, "labels.npy or y.npy"},
      {"x_train.npy:3 y_train.npy:0,1", "x_train.npy", "?", 0, {}, "3 samples need labels"},
  };
  return table;
}

std::vector<std::byte> idx_of(const std::vector<std::uint32_t>& sizes,
                              const std::vector<std::uint8_t>& values) {
  std::vector<std::byte> bytes{std::byte{0}, std::byte{0}, std::byte{8},
                               static_cast<std::byte>(sizes.size())};
  for (const std::uint32_t size : sizes) append_u32(bytes, size);
  for (const std::uint8_t value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

std::vector<std::string> split_at(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);)
    if (!part.empty()) parts.push_back(part);
  return parts;
}

// The tree on disk, and what it says of the sample with each level.
class Made {
 public:
  explicit Made(const std::string& tree) {
    for (const std::string& entry : split_at(tree, ' ')) make(entry);
  }
  std::filesystem::path path(const std::string& below) const {
    return below.empty() ? folder_.path() : folder_ / below;
  }
  // Of a picture: the folders on its way.
  const std::map<int, std::filesystem::path>& pictures() const { return pictures_; }
  // Of arrays: the label of sample i of the array, by the name of the label file.
  const std::map<std::string, std::vector<int>>& labels() const { return labels_; }

 private:
  void make(const std::string& entry) {
    if (const auto arrow = entry.find("->"); arrow != entry.npos) {
      std::filesystem::create_directory_symlink(entry.substr(arrow + 2),
                                                folder_ / entry.substr(0, arrow));
      return;
    }
    const auto colon = entry.find(':');
    const std::string name = entry.substr(0, colon);
    std::filesystem::create_directories((folder_ / name).parent_path());
    if (name.ends_with('/')) {
      std::filesystem::create_directories(folder_ / name);
    } else if (name.ends_with('!')) {
      replace_file(folder_ / name.substr(0, name.size() - 1), std::string_view("no picture"));
    } else if (colon == entry.npos) {
      picture_or_text(name);
    } else {
      array(name, entry.substr(colon + 1));
    }
  }

  void picture_or_text(const std::string& name) {
    if (name.ends_with(".txt")) {
      replace_file(folder_ / name, std::string_view("text"));
      return;
    }
    const int level = static_cast<int>(pictures_.size());
    replace_file(folder_ / name, grey_square(4, static_cast<std::uint8_t>(level)));
    pictures_[level] = name;
  }

  void array(const std::string& name, const std::string& content) {
    const bool labels = content.find(',') != content.npos || name.find("label") != name.npos ||
                        name.find("y_") == 0;
    std::vector<std::uint8_t> bytes;
    std::vector<std::int64_t> numbers;
    if (labels) {
      for (const std::string& one : split_at(content, ',')) numbers.push_back(std::stoi(one));
      for (const std::int64_t number : numbers) bytes.push_back(static_cast<std::uint8_t>(number));
      labels_[name] = {numbers.begin(), numbers.end()};
    } else {
      for (int i = 0; i < std::stoi(content); ++i)
        bytes.insert(bytes.end(), 16, static_cast<std::uint8_t>(10 * i));
    }
    const auto count = static_cast<std::int64_t>(labels ? bytes.size() : bytes.size() / 16);
    if (name.ends_with(".npy")) {
      if (labels) write_npy(folder_ / name, numbers, {count});
      if (!labels) write_npy(folder_ / name, bytes, {count, 4, 4});
      return;
    }
    const auto size = static_cast<std::uint32_t>(count);
    const std::vector<std::byte> file =
        labels ? idx_of({size}, bytes) : idx_of({size, 4, 4}, bytes);
    replace_file(folder_ / name, name.ends_with(".gz") ? gzip(file) : file);
  }

  ScratchFolder folder_;
  std::map<int, std::filesystem::path> pictures_;
  std::map<std::string, std::vector<int>> labels_;
};

int first_level(const DataSet& set, const HostBatch& batch, std::size_t sample) {
  const auto elements = static_cast<std::size_t>(set.sample_shape().elements());
  return static_cast<int>(std::lround((batch.x[sample * elements] + 1) * 127.5f));
}

// Each picture has the class of a folder on its way; each sample of an array that of its number.
void check_labels(const Made& made, const DataSet& set) {
  const HostBatch batch = set.batch(*set.size(), 1, 0);
  for (std::size_t i = 0; i < batch.labels.size(); ++i) {
    const int level = first_level(set, batch, i);
    const std::string& name = set.class_names().at(static_cast<std::size_t>(batch.labels[i]));
    if (made.pictures().contains(level) && made.labels().empty()) {
      const std::filesystem::path& path = made.pictures().at(level);
      INFO(path << " is of class " << name);
      CHECK(std::find(path.begin(), path.end(), name) != path.end());
    } else {
      INFO("sample " << level / 10 << " is of class " << name);
      CHECK(std::any_of(made.labels().begin(), made.labels().end(), [&](const auto& file) {
        const auto row = static_cast<std::size_t>(level / 10);
        return row < file.second.size() && std::to_string(file.second[row]) == name;
      }));
    }
  }
}

}  // namespace

TEST_CASE("folder trees and label files of all habits have their classes, or are refused in words",
          "[corpus]") {
  std::size_t refused = 0;
  for (const Arrangement& one : arrangements()) {
    INFO(one.tree << (one.data.empty() ? "" : ", given ") << one.data);
    const Made made(one.tree);
    const std::string path = made.path(one.data).string();
    if (one.classes == "?") {
      ++refused;
      const std::string message = message_of([&] { make_data_set(path); });
      INFO(message);
      CHECK(contains(message, one.says));
      continue;
    }
    std::unique_ptr<DataSet> set;
    const std::string unexpected = message_of([&] { set = make_data_set(path); });
    INFO(unexpected);
    REQUIRE(set);
    CHECK(set->class_names() ==
          (one.classes == "-" ? std::vector<std::string>() : split_at(one.classes, ' ')));
    CHECK(set->size() == one.train);
    CHECK(set->classes_without_samples().empty());
    std::string warnings;
    for (const std::string& line : set->warnings()) warnings += line + "\n";
    INFO(warnings);
    CHECK(contains(warnings, one.says));
    if (one.says.empty()) CHECK(warnings.empty());
    if (set->classes() > 0) check_labels(made, *set);

    if (!one.data.empty()) continue;
    std::unique_ptr<DataSet> test;
    const std::string no_test =
        message_of<NoTestPart>([&] { test = make_data_set(path, {.split = Split::test}); });
    INFO(no_test);
    CHECK((test != nullptr) == one.test.has_value());
    if (!test || !one.test) continue;
    CHECK(test->size() == *one.test);
    if (test->classes() > 0) check_labels(made, *test);
  }
  CHECK(arrangements().size() >= 80);
  CHECK(refused >= 15);
}

TEST_CASE("what is refused for its classes is taken without them", "[corpus]") {
  for (const Arrangement& one : arrangements()) {
    const bool for_classes = !contains(one.says, "no images") &&
                             !contains(one.says, "holds x_train.npy") &&
                             !contains(one.says, "several sets");
    if (one.classes != "?" || !for_classes) continue;
    INFO(one.tree << (one.data.empty() ? "" : ", given ") << one.data);
    const Made made(one.tree);
    CHECK(make_data_set(made.path(one.data).string(), {.labels = false})->classes() == 0);
  }
}
