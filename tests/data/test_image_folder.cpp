// Image folders as data sets.
#include <unistd.h>

#include <algorithm>
#include <map>

#include "engine/platform/file.h"
#include "models/data/data_set.h"
#include "models/data/image_list.h"
#include "models/images/image.h"
#include "tests/catch.h"
#include "tests/data/pictures.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

void put(const std::filesystem::path& path, const std::vector<std::byte>& bytes) {
  std::filesystem::create_directories(path.parent_path());
  replace_file(path, bytes);
}

// Squares of 4 x 4, class by class: image i has level i.
void write_classes(const std::filesystem::path& folder, const std::vector<std::string>& classes,
                   int each) {
  int level = 0;
  for (const std::string& name : classes)
    for (int i = 0; i < each; ++i, ++level)
      put(folder / name / (std::to_string(i) + ".png"),
          grey_square(4, static_cast<std::uint8_t>(level)));
}

int level_of(float value) { return static_cast<int>(std::lround((value + 1) * 127.5f)); }

// Level and label of every image of an epoch.
std::map<int, std::int32_t> epoch(const DataSet& set) {
  const HostBatch batch = set.batch(*set.size(), 1, 0);
  const auto elements = static_cast<std::size_t>(set.sample_shape().elements());
  std::map<int, std::int32_t> result;
  for (std::size_t i = 0; i < batch.labels.size(); ++i)
    result[level_of(batch.x[i * elements])] = batch.labels[i];
  return result;
}

std::string why(const std::filesystem::path& path, const DataSetOptions& options = {}) {
  return message_of([&] { make_data_set(path.string(), options); });
}

}  // namespace

TEST_CASE("image folders: sub-folders are classes in the order of their names", "[data]") {
  const ScratchFolder folder;
  write_classes(folder.path(), {"dog", "10", "2", "Zebra", "k\xc3\xa4tzchen \xe7\x8c\xab"}, 2);
  put(folder / "dog/deeper/still/x.PNG", grey_square(4, 200));
  put(folder / ".hidden/x.png", grey_square(4, 201));
  put(folder / "2/.x.png", bytes_of("not looked at"));
  std::filesystem::create_directories(folder / "no images here");
  const auto set = make_data_set(folder.path().string());
  CHECK(set->class_names() ==
        std::vector<std::string>{"10", "2", "Zebra", "dog", "k\xc3\xa4tzchen \xe7\x8c\xab"});
  CHECK(set->classes() == 5);
  CHECK(set->size() == 11);
  CHECK(set->sample_shape() == Shape{4, 4, 1});
  REQUIRE(set->warnings().size() == 1);
  CHECK(contains(set->warnings()[0], "no class without images: no images here"));
  CHECK(epoch(*set) == std::map<int, std::int32_t>{{0, 3},
                                                   {1, 3},
                                                   {2, 0},
                                                   {3, 0},
                                                   {4, 1},
                                                   {5, 1},
                                                   {6, 2},
                                                   {7, 2},
                                                   {8, 4},
                                                   {9, 4},
                                                   {200, 3}});

  const auto unlabelled = make_data_set(folder.path().string(), {.labels = false});
  CHECK(unlabelled->classes() == 0);
  CHECK(unlabelled->size() == 11);
  for (const auto& [level, label] : epoch(*unlabelled)) CHECK(label == 0);
}

TEST_CASE("image folders: in the order of numbers, classes stay in theirs", "[data]") {
  std::vector<ListedImage> images;
  for (const char* name :
       {"1.png", "10.png", "2.png", "a/x10y2.png", "a/x10y10.png", "a/x9.png", "02.png",
        "a-b/1.png", "20000000000000000000000.png", "3000.png", "x.png"})
    images.push_back({name, 0});
  images.push_back({"0.png", 1});
  std::ranges::reverse(images);
  sort_by_number(images);
  std::vector<std::string> names;
  for (const ListedImage& image : images) names.push_back(image.path.string());
  CHECK(names == std::vector<std::string>{"1.png", "02.png", "2.png", "10.png", "3000.png",
                                          "20000000000000000000000.png", "a/x9.png", "a/x10y2.png",
                                          "a/x10y10.png", "a-b/1.png", "x.png", "0.png"});
}

TEST_CASE("image folders: flat, or with one sub-folder, they are unlabelled", "[data]") {
  const ScratchFolder flat, single, mixed;
  write_classes(flat.path(), {"."}, 3);
  write_classes(single.path(), {"all"}, 3);
  for (const ScratchFolder* folder : {&flat, &single}) {
    const auto set = make_data_set(folder->path().string());
    CHECK(set->classes() == 0);
    CHECK(set->size() == 3);
  }
  write_classes(mixed.path(), {".", "a", "b"}, 1);
  CHECK(contains(why(mixed.path()), "0.png"));
  CHECK(contains(why(mixed.path()), "--no-labels"));
  CHECK(make_data_set(mixed.path().string(), {.labels = false})->size() == 3);
}

TEST_CASE("image folders: train and test are splits where both are there", "[data]") {
  for (const std::string held_out : {"test", "val"}) {
    const ScratchFolder folder;
    write_classes(folder / "train", {"a", "b", "c"}, 2);
    put(folder / held_out / "c/x.png", grey_square(4, 99));
    const auto train = make_data_set(folder.path().string()),
               test = make_data_set(folder.path().string(), {.split = Split::test});
    CHECK(train->size() == 6);
    CHECK(train->class_names() == std::vector<std::string>{"a", "b", "c"});
    CHECK(test->class_names() == train->class_names());
    CHECK(epoch(*test) == std::map<int, std::int32_t>{{99, 2}});
    put(folder / held_out / "d/x.png", grey_square(4, 99));
    CHECK(contains(why(folder.path(), {.split = Split::test}), "class d"));
    std::filesystem::remove_all(folder / held_out);
    CHECK(contains(why(folder.path(), {.split = Split::test}), "no held-out part"));
  }
}

TEST_CASE("image folders: what is no image is left out with a word, and batches hold the rest",
          "[data]") {
  const ScratchFolder folder;
  write_classes(folder.path(), {"a", "b"}, 3);
  const std::vector<std::byte> whole = from_hex(baseline_jpeg);
  put(folder / "a/empty.png", {});
  put(folder / "a/text.jpg", bytes_of("hello"));
  put(folder / "b/cut.jpg", {whole.begin(), whole.begin() + 200});
  put(folder / "b/huge.png", png_of({.width = 60'000, .height = 60'000, .rows = {0}}));
  put(folder / "b/notes.txt", bytes_of("hello"));
  put(folder / "folder.png/inside.png", grey_square(4, 50));
  std::filesystem::create_directory_symlink(folder.path(), folder / "b/loop");
  std::filesystem::create_symlink("nowhere", folder / "a/dangling.png");
  const auto set = make_data_set(folder.path().string());
  CHECK(set->size() == 7);
  CHECK(epoch(*set) ==
        std::map<int, std::int32_t>{{0, 0}, {1, 0}, {2, 0}, {3, 1}, {4, 1}, {5, 1}, {50, 2}});
  const std::vector<std::string> warnings = set->warnings();
  REQUIRE(warnings.size() == 5);
  CHECK(contains(warnings[0], "2 files"));
  CHECK(contains(warnings[0], "notes.txt"));
  CHECK(contains(warnings[1], "empty.png: an empty file"));
  CHECK(contains(warnings[2], "text.jpg: neither"));
  CHECK(contains(warnings[3], "cut.jpg: a JPEG that ends early"));
  CHECK(contains(warnings[4], "huge.png: an image of 60000 x 60000"));
}

TEST_CASE("image folders: an unreadable file is left out", "[data]") {
  if (::geteuid() == 0) {
    WARN("skipped: root reads everything");
    return;
  }
  const ScratchFolder folder;
  write_classes(folder.path(), {"."}, 2);
  std::filesystem::permissions(folder / "1.png", std::filesystem::perms::none);
  const auto set = make_data_set(folder.path().string());
  CHECK(set->size() == 1);
  REQUIRE(set->warnings().size() == 1);
  CHECK(contains(set->warnings()[0], "Permission denied"));
}

TEST_CASE("image folders: damage that only decoding shows costs one image, and one word",
          "[data]") {
  const ScratchFolder folder;
  write_classes(folder.path(), {"a", "b"}, 4);
  auto file = grey_square(4, 77);
  const std::vector<std::byte> mark = bytes_of("IDAT");
  std::search(file.begin(), file.end(), mark.begin(), mark.end())[8] ^= std::byte{4};
  put(folder / "a/3.png", file);
  for (const std::uint64_t memory : {0, 1 << 20}) {
    const auto set = make_data_set(folder.path().string(), {.memory = memory});
    CHECK(set->size() == 8);
    CHECK(set->warnings().empty());
    // The first of the next class stands in, label and all.
    const HostBatch batch = set->batch(8, 1, 0), again = set->batch(8, 1, 0);
    CHECK(batch.x == again.x);
    CHECK(std::count(batch.labels.begin(), batch.labels.end(), 1) == 5);
    REQUIRE(set->warnings().size() == 1);
    CHECK(contains(set->warnings()[0], "3.png: a damaged PNG"));
  }
  const ScratchFolder hopeless;
  put(hopeless / "x.png", file);
  CHECK_THROWS_AS(make_data_set(hopeless.path().string())->batch(1, 1, 0), FormatError);
}

TEST_CASE("image folders: a file that can't be read any more is an error, not damage", "[data]") {
  const ScratchFolder folder;
  write_classes(folder.path(), {"a", "b"}, 2);
  const auto set = make_data_set(folder.path().string());
  std::filesystem::remove(folder / "a/1.png");
  CHECK_THROWS_AS(set->batch(4, 1, 0), IoError);
  CHECK(set->warnings().empty());
}

TEST_CASE("image folders: decoded images keep to the memory limit", "[data]") {
  const ScratchFolder folder;
  write_classes(folder.path(), {"a", "b"}, 8);
  const std::string path = folder.path().string();
  // 16 images of 4 x 4 are kept in half of it, or none are.
  CHECK(make_data_set(path, {.memory_limit = 512})->bytes_to_come() == 256);
  CHECK(make_data_set(path, {.memory_limit = 511})->bytes_to_come() == 0);
  // No picture is decoded that takes more.
  CHECK(make_data_set(path, {.memory_limit = 16})->batch(1, 0, 0).x.size() == 16);
  CHECK(contains(message_of<OutOfMemory>([&] { make_data_set(path, {.memory_limit = 15}); }),
                 "0.png: it takes 16 bytes"));
}

TEST_CASE("image folders: batches do not depend on the memory they may take", "[data]") {
  const ScratchFolder folder;
  write_classes(folder.path(), {"a", "b", "c"}, 5);
  const auto kept = make_data_set(folder.path().string(), {.flip = true});
  const auto read = make_data_set(folder.path().string(), {.flip = true, .memory = 0});
  for (std::uint64_t step = 0; step < 8; ++step) {
    const HostBatch a = kept->batch(4, 7, step), b = read->batch(4, 7, step);
    CHECK(a.x == b.x);
    CHECK(a.labels == b.labels);
  }
}

TEST_CASE("image folders: sizes and channels", "[data]") {
  const ScratchFolder folder;
  put(folder / "a.png", grey_square(4, 10));
  put(folder / "b.png", grey_square(6, 20));
  const std::string message = why(folder.path());
  CHECK(contains(message, "a.png has 4 x 4"));
  CHECK(contains(message, "b.png 6 x 6"));
  CHECK(contains(message, "--image-size"));
  CHECK(contains(message, "shortest side is 4"));
  const auto set = make_data_set(folder.path().string(), {.image_size = 5});
  CHECK(set->sample_shape() == Shape{5, 5, 1});
  CHECK(epoch(*set).size() == 2);
  CHECK(contains(why(folder.path(), {.image_size = 5000}), "image size of 5000"));
  CHECK(contains(why(folder.path(), {.image_size = 4, .channels = 2}), "2 channels"));

  put(folder / "c.png", png_of({.colour = 2, .rows = {200, 100, 50}}));
  const auto rgb = make_data_set(folder.path().string(), {.image_size = 2}),
             grey = make_data_set(folder.path().string(), {.image_size = 2, .channels = 1});
  CHECK(rgb->sample_shape() == Shape{2, 2, 3});
  CHECK(grey->sample_shape() == Shape{2, 2, 1});
  CHECK(epoch(*grey).contains(124));  // 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
  CHECK(epoch(*rgb).contains(200));

  const ScratchFolder oblong;
  put(oblong / "a.jpg", from_hex(baseline_jpeg));
  CHECK(contains(why(oblong.path()), "16 x 8"));
  CHECK(make_data_set(oblong.path().string(), {.image_size = 8})->sample_shape() == Shape{8, 8, 3});
}

TEST_CASE("image folders: without an image, or with none that can be read, they are refused",
          "[data]") {
  const ScratchFolder folder;
  CHECK(contains(why(folder.path()), "holds no images"));
  put(folder / "x.png", bytes_of("hello"));
  CHECK(contains(why(folder.path()), "none of its 1 images"));
  CHECK(contains(why(folder.path()), "x.png: neither a PNG nor a JPEG"));
}

TEST_CASE("image folders: progress reaches the end", "[data]") {
  const ScratchFolder folder;
  write_classes(folder.path(), {"."}, 40);
  std::int64_t last = 0;
  make_data_set(folder.path().string(), {.progress = [&](std::int64_t done, std::int64_t total) {
                  CHECK(total == 40);
                  CHECK(done >= last);
                  last = done;
                }});
  CHECK(last == 40);
  CHECK_THROWS_AS(
      make_data_set(folder.path().string(),
                    {.progress = [](std::int64_t, std::int64_t) { throw Cancelled("enough"); }}),
      Cancelled);
}

TEST_CASE(
    "flips: half of the images, another half in another epoch, and the same for the same seed",
    "[data]") {
  const ScratchFolder folder;
  std::vector<std::uint8_t> rows;
  for (int i = 0; i < 2 * 2 * 3; ++i) rows.push_back(static_cast<std::uint8_t>(i));
  for (int i = 0; i < 40; ++i)
    put(folder / (std::to_string(i) + ".png"),
        png_of({.width = 2, .height = 2, .colour = 2, .rows = rows}));
  const auto set = make_data_set(folder.path().string(), {.flip = true});
  const auto flipped = [&](std::uint64_t seed, std::uint64_t step) {
    const HostBatch batch = set->batch(40, seed, step);
    std::vector<bool> result;
    for (std::size_t i = 0; i < 40; ++i) {
      std::vector<int> levels;
      for (std::size_t k = 0; k < 12; ++k) levels.push_back(level_of(batch.x[12 * i + k]));
      const bool mirrored = levels[0] == 3;
      CHECK(levels == (mirrored ? std::vector<int>{3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8}
                                : std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
      result.push_back(mirrored);
    }
    return result;
  };
  const std::vector<bool> first = flipped(1, 0);
  const auto count = std::count(first.begin(), first.end(), true);
  CHECK(count > 8);
  CHECK(count < 32);
  CHECK(flipped(1, 0) == first);
  CHECK(flipped(1, 1) != first);
  CHECK(flipped(2, 0) != first);
  CHECK_THROWS_AS(make_data_set("moons", {.flip = true}), Error);
}
