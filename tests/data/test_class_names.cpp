// Classes as names: finding, comparing and renumbering them.
#include "engine/platform/file.h"
#include "models/data/class_names.h"
#include "models/data/data_set.h"
#include "models/data/split_names.h"
#include "models/files/npy.h"
#include "tests/catch.h"
#include "tests/data/pictures.h"
#include "tests/error_message.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

using Names = std::vector<std::string>;

// Folders a, b, c of squares; image i of them all has level i.
void write_letters(const ScratchFolder& folder, const Names& names, int each = 2) {
  int level = 0;
  for (const std::string& name : names) {
    std::filesystem::create_directories(folder / name);
    for (int i = 0; i < each; ++i, ++level)
      replace_file(folder / (name + "/" + std::to_string(i) + ".png"),
                   grey_square(4, static_cast<std::uint8_t>(level)));
  }
}

}  // namespace

TEST_CASE("a class is found by name, and by number only where no class has a number for a name",
          "[data][classes]") {
  CHECK(find_class({"cat", "dog"}, "dog") == 1);
  CHECK(find_class({"cat", "dog"}, "0") == 0);
  CHECK_FALSE(find_class({"cat", "dog"}, "2"));
  CHECK_FALSE(find_class({"cat", "dog"}, "-1"));
  CHECK_FALSE(find_class({"cat", "dog"}, "bird"));
  CHECK(find_class({"1", "2", "3"}, "2") == 1);
  CHECK_FALSE(find_class({"1", "2", "3"}, "0"));
  CHECK(find_class({"0", "1", "900"}, "900") == 2);
  CHECK_FALSE(find_class({"0", "1", "900"}, "2"));
  CHECK_FALSE(find_class({"cat", "7"}, "0"));
  CHECK_FALSE(find_class({"01", "02"}, "1"));
  CHECK_FALSE(find_class({"a"}, "99999999999999999999"));
  CHECK(find_class({class_text("caf\xe9")}, "caf\xe9") == 0);
}

TEST_CASE("lists of classes are told short, and differences in names", "[data][classes]") {
  CHECK(class_list({"a", "b"}) == "a, b");
  CHECK(class_list({"a", "b", "c", "d", "e", "f", "g"}) == "a, b, c, d, e and 2 more");
  CHECK(class_list(numbered_classes(10)) == "0 to 9");
  CHECK(class_list({"1", "2", "3", "4", "5", "7"}) == "1, 2, 3, 4, 5 and 1 more");
  CHECK(class_difference("A", {"a", "b"}, "B", {"b", "a"}).empty());
  CHECK(class_difference("A", {"a", "b"}, "B", {"b", "c"}) ==
        "A has a, which B lacks, and B has c, which A lacks");
  CHECK(class_difference("A", {"a", "b"}, "B", {"b"}) == "A has a, which B lacks");
  CHECK(places_of({"b", "x", "a"}, {"a", "b"}) == std::vector<std::int32_t>{1, -1, 0});
  CHECK(class_text("k\xc3\xa4tzchen") == "k\xc3\xa4tzchen");
  CHECK(class_text("caf\xe9") == "caf\\xe9");
}

TEST_CASE("an exchange of names is one where both have moved", "[data][classes]") {
  const Names names = {"cat", "dog", "eel"}, marks = {"1", "2", "3"};
  CHECK(exchanged_classes(names, marks, names, marks).empty());
  CHECK(exchanged_classes(names, marks, names, {"2", "1", "3"}) == "cat holds what was dog");
  CHECK(exchanged_classes(names, marks, names, {"2", "9", "3"}).empty());  // a sample was moved
  CHECK(exchanged_classes(names, marks, names, {"7", "8", "9"}).empty());  // other pictures
  CHECK(exchanged_classes(names, {}, names, marks).empty());
  CHECK(exchanged_classes(names, {"1", "1", "3"}, names, {"1", "1", "3"}).empty());
}

TEST_CASE("data without a sample in common are other data, where samples are known",
          "[data][classes]") {
  CHECK(are_other_data({"1", "2"}, {"3", "4"}));
  CHECK_FALSE(are_other_data({"1", "2"}, {"3", "1"}));
  CHECK_FALSE(are_other_data({}, {"3"}));
  CHECK_FALSE(are_other_data({"1"}, {}));
  CHECK_FALSE(are_other_data({"1"}, {""}));
  CHECK_FALSE(are_other_data({""}, {"3"}));
}

TEST_CASE("parts of a set are known by the words that people use", "[data][classes]") {
  for (const char* name : {"train", "Train", "TRAIN", "training", "train2017", "train_set",
                           "training-images", "images_train", "trainval", "Train Data"}) {
    INFO(name);
    CHECK(part_named(name) == PartName::training);
  }
  for (const char* name : {"test", "Test", "testing", "t10k", "val", "val2017", "Validation",
                           "test_images", "imgs-val"}) {
    INFO(name);
    CHECK(part_named(name) == PartName::held_out);
  }
  for (const char* name : {"valid", "dev", "eval", "Evaluation", "hold_out"}) {
    INFO(name);
    CHECK(part_named(name) == PartName::perhaps_held_out);
  }
  for (const char* name : {"cat", "trains", "trainer", "contest", "invalid", "2017", "", "set",
                           "device", "evaluator", "toy train"}) {
    INFO(name);
    CHECK(part_named(name) == PartName::none);
  }
  CHECK(held_out_rank("Test") < held_out_rank("val"));
}

TEST_CASE("a set takes the numbers of another list of its classes", "[data][classes]") {
  const ScratchFolder folder;
  write_letters(folder, {"a", "b", "c"});
  const auto set = make_data_set(folder.path().string());
  CHECK(set->labels() == std::vector<std::int32_t>{0, 0, 1, 1, 2, 2});
  const Names marks = set->class_marks();
  REQUIRE(marks.size() == 3);
  CHECK(marks[0] != marks[1]);
  const HostBatch before = set->batch(6, 1, 0);
  set->number_classes({"c", "x", "b", "a"});
  CHECK(set->classes() == 4);
  CHECK(set->labels() == std::vector<std::int32_t>{3, 3, 2, 2, 0, 0});
  CHECK(set->class_sizes() == std::vector<std::int64_t>{2, 0, 2, 2});
  CHECK(set->classes_without_samples() == std::vector<std::int32_t>{1});
  CHECK(set->class_marks() == Names{marks[2], "", marks[1], marks[0]});
  const HostBatch after = set->batch(6, 1, 0);
  CHECK(after.x == before.x);
  for (std::size_t i = 0; i < 6; ++i)
    CHECK(after.labels[i] ==
          std::vector<std::int32_t>{3, 2, 0}[static_cast<std::size_t>(before.labels[i])]);
  set->number_classes({"a", "b", "c", "x"});  // and once more
  CHECK(set->labels() == std::vector<std::int32_t>{0, 0, 1, 1, 2, 2});
  CHECK(contains(message_of([&] { set->number_classes({"a", "b"}); }), "has c, x"));
}

TEST_CASE("marks know a folder again under another name, size and channels", "[data][classes]") {
  const ScratchFolder folder;
  write_letters(folder, {"a", "b"});
  const Names before = make_data_set(folder.path().string())->class_marks();
  std::filesystem::rename(folder / "a", folder / "z");
  const auto after =
      make_data_set(folder.path().string(), {.image_size = 2, .channels = 3, .flip = true});
  CHECK(after->class_names() == Names{"b", "z"});
  CHECK(after->class_marks() == Names{before[1], before[0]});
  CHECK(make_data_set(folder.path().string(), {.labels = false})->class_marks().empty());
  CHECK(make_data_set("glyphs")->class_marks().empty());
}

TEST_CASE("a class whose pixels are all damaged is named, and has no samples from then on",
          "[data][classes]") {
  const ScratchFolder folder;
  write_letters(folder, {"a", "b", "c"});
  auto file = grey_square(4, 77);
  const std::vector<std::byte> mark = bytes_of("IDAT");
  std::search(file.begin(), file.end(), mark.begin(), mark.end())[8] ^= std::byte{4};
  for (const char* name : {"b/0.png", "b/1.png"}) replace_file(folder / name, file);
  const auto set = make_data_set(folder.path().string());
  CHECK(set->classes() == 3);
  CHECK(set->classes_without_samples().empty());
  set->batch(6, 1, 0);
  CHECK(set->classes_without_samples() == std::vector<std::int32_t>{1});
  CHECK(set->labels() == std::vector<std::int32_t>{0, 0, -1, -1, 2, 2});
  CHECK(contains(set->warnings().back(), "none of the 2 images of class b"));
}

TEST_CASE("a held-out part has the numbers of the training part, whatever it holds",
          "[data][classes]") {
  const ScratchFolder folder;
  const auto square = [&](const std::string& path, std::uint8_t level) {
    std::filesystem::create_directories((folder / path).parent_path());
    replace_file(folder / path, grey_square(4, level));
  };
  square("Train/a/1.png", 1);
  square("Train/b/1.png", 2);
  square("Train/d/1.png", 3);
  square("dev/d/1.png", 3);
  std::filesystem::create_directories(folder / "Train/c");
  replace_file(folder / "Train/c/1.png", std::string_view("no picture"));
  const auto test = make_data_set(folder.path().string(), {.split = Split::test});
  CHECK(test->class_names() == Names{"a", "b", "d"});
  CHECK(test->batch(1, 1, 0).labels == std::vector<std::int32_t>{2});
  square("dev/c/1.png", 4);
  CHECK(contains(message_of([&] { make_data_set(folder.path().string(), {.split = Split::test}); }),
                 "class c is not among those of Train"));
}
