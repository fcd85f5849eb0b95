// .npz archives as data sets, and labels in files of their own.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/platform/file.h"
#include "models/data/data_set.h"
#include "models/files/npy.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/files/containers.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// `count` images of 2 x 2, all of one level.
Bytes flat_images(int count, int level) {
  return npy_file("'|u1'", false, "(" + std::to_string(count) + ", 2, 2)",
                  Bytes(static_cast<std::size_t>(4 * count), static_cast<std::byte>(level)));
}
Bytes label_bytes(const std::vector<int>& labels) {
  Bytes data;
  for (const int label : labels) append_little(data, static_cast<std::uint64_t>(label), 1);
  return npy_file("'|u1'", false, "(" + std::to_string(labels.size()) + ",)", data);
}

}  // namespace

TEST_CASE("npz data: the parts are those that the names say, with classes by name", "[data]") {
  const ScratchFolder folder;
  const ZipPlan plan{.members = {{.name = "x_train.npy", .content = flat_images(3, 255)},
                                 {.name = "y_train.npy", .content = label_bytes({0, 4, 1})},
                                 {.name = "x_test.npy", .content = flat_images(2, 0)},
                                 {.name = "y_test.npy", .content = label_bytes({1, 1})},
                                 {.name = "mean.npy", .content = flat_images(1, 7)}}};
  replace_file(folder / "mnist.npz", plan.bytes());
  const std::string path = (folder / "mnist.npz").string();
  const auto train = make_data_set(path), test = make_data_set(path, {.split = Split::test});
  CHECK(train->size() == 3);
  CHECK(train->batch(1, 0, 0).x[0] == 1);
  CHECK(train->class_names() == std::vector<std::string>{"0", "1", "4"});
  const std::vector<std::string> warnings = train->warnings();
  CHECK(std::any_of(warnings.begin(), warnings.end(),
                    [](const std::string& line) { return contains(line, "not used: mean"); }));
  CHECK(test->size() == 2);
  CHECK(test->batch(1, 0, 0).x[0] == -1);
  CHECK(test->class_names() == std::vector<std::string>{"1"});
  CHECK(make_data_set(path, {.labels = false})->classes() == 0);

  const ZipPlan whole{.members = {{.name = "images.npy", .content = flat_images(3, 255)}}};
  replace_file(folder / "whole.npz", whole.bytes());
  CHECK_THROWS_AS(make_data_set((folder / "whole.npz").string(), {.split = Split::test}),
                  NoTestPart);
}

TEST_CASE("npy and npz data: labels are found in the file that is named for them", "[data]") {
  const auto classes_with = [](const std::string& images, const std::string& labels) {
    const ScratchFolder folder;
    const bool npz = images.ends_with(".npz");
    const ZipPlan zip{.members = {{.name = "arr_0.npy", .content = flat_images(2, 9)}}};
    const ZipPlan label_zip{.members = {{.name = "arr_0.npy", .content = label_bytes({0, 2})}}};
    replace_file(folder / images, npz ? zip.bytes() : flat_images(2, 9));
    replace_file(folder / labels,
                 labels.ends_with(".npz") ? label_zip.bytes() : label_bytes({0, 2}));
    INFO(images << ", " << labels);
    return make_data_set((folder / images).string())->classes();
  };
  CHECK(classes_with("faces.npy", "faces.labels.npy") == 2);
  CHECK(classes_with("FACES.NPY", "FACES.LABELS.NPY") == 2);
  CHECK(classes_with("faces.npz", "faces.labels.npy") == 2);
  CHECK(classes_with("x_train.npy", "y_train.npy") == 2);
  CHECK(classes_with("X.npy", "y.npy") == 2);
  CHECK(classes_with("train-images.npy", "train-labels.npy") == 2);
  CHECK(classes_with("kmnist-train-imgs.npz", "kmnist-train-labels.npz") == 2);
  CHECK(classes_with("x_train.npy", "y_test.npy") == 0);
  CHECK(classes_with("box.npy", "boy.npy") == 0);
}

TEST_CASE("npy data: a file named like labels that holds none is refused", "[data]") {
  const ScratchFolder folder;
  const std::string path = (folder / "x.npy").string();
  replace_file(path, flat_images(2, 9));
  write_npy(folder / "y.npy", std::vector<float>{0.5f, 1}, {2});
  CHECK(contains(message_of([&] { make_data_set(path); }), "whole numbers"));
  CHECK(make_data_set(path, {.labels = false})->classes() == 0);
  replace_file(folder / "y.npy", label_bytes({0, 1, 1}));
  CHECK(contains(message_of([&] { make_data_set(path); }), "--no-labels"));
  // Damage is no reason to train without them.
  for (const std::string damaged : {"", "\x93NUM", "0\n1\n", "\x80\x04\x95 a pickle"}) {
    replace_file(folder / "y.npy", damaged);
    CHECK(contains(message_of([&] { make_data_set(path); }), "y.npy"));
  }
  std::filesystem::remove(folder / "y.npy");
  replace_file(folder / "y.npy.gz", std::string("\x1f\x8b\x08 damaged"));
  CHECK(contains(message_of([&] { make_data_set(path); }), "y.npy.gz"));
  std::filesystem::remove(folder / "y.npy.gz");
  replace_file(folder / "y.txt", std::string("0\n1\n"));  // not the name of an array
  CHECK(make_data_set(path)->classes() == 0);
}

TEST_CASE("npy data: what a conversion takes is refused before it is taken", "[data]") {
  const ScratchFolder folder;
  const auto refusal = [&](const std::string& name, std::uint64_t limit) {
    return message_of<OutOfMemory>(
        [&] { make_data_set((folder / name).string(), {.memory_limit = limit}); });
  };
  write_npy(folder / "halves.npy", std::vector<Float16>(600, to_f16(0.5f)), {6, 10, 10});
  CHECK(contains(refusal("halves.npy", 2399), "halves.npy: it takes 2400 bytes"));
  CHECK(refusal("halves.npy", 2400) == "");
  // Whole numbers become bytes.
  write_npy(folder / "whole.npy", std::vector<std::int32_t>(600, 7), {6, 10, 10});
  CHECK(contains(refusal("whole.npy", 599), "it takes 600 bytes"));
  CHECK(refusal("whole.npy", 600) == "");
  // Held as stored: read from the file.
  write_npy(folder / "floats.npy", std::vector<float>(600, 0.5f), {6, 10, 10});
  CHECK(refusal("floats.npy", 0) == "");
}

TEST_CASE("labels: what unpacking them takes is refused before it is taken", "[data]") {
  constexpr int count = 1000;
  const Bytes zeros(count);
  const Bytes npy_labels = npy_file("'|u1'", false, "(1000,)", zeros);
  const Bytes npz_labels =
      ZipPlan{.members = {{.name = "y.npy", .content = npy_labels, .deflate = true}}}.bytes();
  // Of images that are read where they lie, and take nothing.
  const Bytes images = npy_file("'|u1'", false, "(1000, 1, 1)", Bytes(count, std::byte{9}));
  const auto open = [&](const std::string& name, const Bytes& labels, std::uint64_t limit) {
    const ScratchFolder folder;
    replace_file(folder / "x.npy", images);
    replace_file(folder / name, labels);
    INFO(name << ", " << limit);
    return message_of<OutOfMemory>(
        [&] { make_data_set((folder / "x.npy").string(), {.memory_limit = limit}); });
  };
  for (const auto& [name, labels] : std::vector<std::pair<std::string, Bytes>>{
           {"y.npy.gz", gzip(npy_labels)},
           {"y.npz", npz_labels},
           {"y-idx1-ubyte.gz", gzip(idx_file(8, {count}, zeros))},
           {"labels.npy.gz", gzip(npy_labels)}}) {
    CHECK(contains(open(name, labels, 1400), name));
  }
  // As they are held, in four bytes each.
  CHECK(contains(open("y.npy", npy_labels, 3999), "y.npy: it takes 4000 bytes"));
  CHECK(open("y.npy", npy_labels, 4000) == "");

  // Whatever is no labels of these samples is not unpacked.
  const ScratchFolder folder;
  const ZipPlan plan{.members = {{.name = "x.npy", .content = flat_images(2, 9)},
                                 {.name = "y.npy", .content = npy_labels, .deflate = true}}};
  replace_file(folder / "x.npz", plan.bytes());
  CHECK(contains(message_of<FormatError>(
                     [&] { make_data_set((folder / "x.npz").string(), {.memory_limit = 100}); }),
                 "2 samples need labels [2]"));
}

TEST_CASE("npy data: images that are nearly black are remarked on", "[data]") {
  const ScratchFolder folder;
  replace_file(folder / "bits.npy", flat_images(2, 1));
  REQUIRE(make_data_set((folder / "bits.npy").string())->warnings().size() == 1);
  replace_file(folder / "bits.npy", flat_images(2, 2));
  CHECK(make_data_set((folder / "bits.npy").string())->warnings().empty());
}

TEST_CASE("folders: another version of a set that is read is named", "[data]") {
  const ScratchFolder folder;
  replace_file(folder / "data_batch_1", std::string_view("\x80\x02"));
  replace_file(folder / "test_batch", std::string_view("\x80\x02"));
  const std::string why = message_of([&] { make_data_set(folder.path().string()); });
  CHECK(contains(why, "CIFAR-10's Python version"));
  CHECK(contains(why, "cifar-10-binary.tar.gz"));
}

TEST_CASE("folders: without pictures, what they hold is named", "[data]") {
  const auto why = [](const std::string& name, const Bytes& content) {
    const ScratchFolder folder;
    replace_file(folder / "README.txt", std::string_view("about"));
    replace_file(folder / name, content);
    return message_of([&] { make_data_set(folder.path().string()); });
  };
  CHECK(contains(why("x_train.npy", flat_images(2, 9)), "holds x_train.npy, a NumPy array"));
  const ZipPlan zip{.members = {{.name = "x.npy", .content = flat_images(2, 9)}}};
  CHECK(contains(why("mnist.npz", zip.bytes()), "give the file of samples itself"));
  CHECK(contains(why("train.parquet", bytes_of("PAR1\x15\x04")), "a Parquet file: "));
  CHECK(contains(why("notes.txt", bytes_of("nothing")), "holds no images"));
}
