// .npy arrays and CIFAR-10's files as data sets.
#include <algorithm>
#include <limits>

#include "engine/platform/file.h"
#include "models/data/data_set.h"
#include "models/files/npy.h"
#include "tests/catch.h"
#include "tests/data/pictures.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

std::string npy_refusal(const std::filesystem::path& path, const DataSetOptions& options = {}) {
  return message_of([&] { make_data_set(path.string(), options); });
}

}  // namespace

TEST_CASE("npy data: points of any dimension, with labels beside them", "[data]") {
  const ScratchFolder folder;
  const std::vector<float> values = {0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32};
  write_npy(folder / "p.npy", values, {4, 3});
  write_npy(folder / "d.npy", std::vector<double>(values.begin(), values.end()), {4, 3});
  const std::string path = (folder / "p.npy").string();
  CHECK(make_data_set(path)->classes() == 0);
  write_npy(folder / "p.labels.npy", std::vector<std::int64_t>{0, 2, 0, 1}, {4});
  for (const char* const name : {"p.npy", "d.npy"}) {
    const auto set = make_data_set((folder / name).string());
    CHECK(set->sample_shape() == Shape{3});
    CHECK(set->size() == 4);
    const HostBatch batch = set->batch(4, 1, 0);
    for (std::size_t i = 0; i < 4; ++i) {
      const int row = static_cast<int>(batch.x[3 * i]) / 10;
      CHECK(batch.x[3 * i + 2] == static_cast<float>(10 * row + 2));
      if (set->classes() > 0)
        CHECK(batch.labels[i] ==
              std::vector<std::int32_t>{0, 2, 0, 1}[static_cast<std::size_t>(row)]);
    }
  }
  CHECK(make_data_set(path)->class_names() == std::vector<std::string>{"0", "1", "2"});
  CHECK(make_data_set(path, {.labels = false})->classes() == 0);
  CHECK(contains(npy_refusal(path, {.image_size = 8}), "no image size"));
  CHECK(contains(npy_refusal(path, {.split = Split::test}), "no held-out part"));
}

TEST_CASE("npy data: images of bytes and of floats", "[data]") {
  const ScratchFolder folder;
  std::vector<std::uint8_t> bytes;
  std::vector<float> floats;
  for (int i = 0; i < 2 * 4 * 4; ++i) {
    bytes.push_back(static_cast<std::uint8_t>(5 * i));
    floats.push_back(static_cast<float>(bytes.back()) / 127.5f - 1.0f);
  }
  write_npy(folder / "bytes.npy", bytes, {2, 4, 4});
  write_npy(folder / "floats.npy", floats, {2, 4, 4, 1});
  const auto a = make_data_set((folder / "bytes.npy").string()),
             b = make_data_set((folder / "floats.npy").string());
  CHECK(a->sample_shape() == Shape{4, 4, 1});
  CHECK(a->batch(2, 1, 0).x == b->batch(2, 1, 0).x);
  CHECK(b->warnings().empty());
  const DataSetOptions small{.image_size = 2, .channels = 3};
  const auto c = make_data_set((folder / "bytes.npy").string(), small),
             d = make_data_set((folder / "floats.npy").string(), small);
  CHECK(c->sample_shape() == Shape{2, 2, 3});
  const HostBatch from_bytes = c->batch(2, 1, 0), from_floats = d->batch(2, 1, 0);
  for (std::size_t i = 0; i < from_bytes.x.size(); ++i)
    CHECK(from_bytes.x[i] == Approx(from_floats.x[i]).margin(0.5 / 127.5));  // rounded to a byte

  write_npy(folder / "unit.npy", std::vector<float>{0, 1, 0.5f, 0.25f}, {1, 2, 2});
  const std::vector<std::string> warnings =
      make_data_set((folder / "unit.npy").string())->warnings();
  REQUIRE(warnings.size() == 1);
  CHECK(contains(warnings[0], "[-1, 1]"));
}

TEST_CASE("npy data: what can't be trained on is refused with the place", "[data]") {
  const ScratchFolder folder;
  std::vector<float> values(12, 0.5f);
  const auto refused = [&](const auto& content, const Shape& shape) {
    write_npy(folder / "x.npy", content, shape);
    return npy_refusal(folder / "x.npy");
  };
  CHECK(contains(refused(values, {12}), "[count, dimensions]"));
  CHECK(contains(refused(values, {1, 3, 2, 2}), "transpose"));
  CHECK(contains(refused(values, {1, 1, 1, 1, 12}), "[count, dimensions]"));
  CHECK(contains(refused(std::vector<float>(), {0, 3}), "empty"));
  CHECK(contains(refused(std::vector<std::int32_t>(4), {2, 2}), "<f4"));
  values[7] = std::numeric_limits<float>::quiet_NaN();
  CHECK(contains(refused(values, {4, 3}), "element 7, of sample 2"));
  values[7] = -std::numeric_limits<float>::infinity();
  CHECK(contains(refused(values, {4, 3}), "element 7, of sample 2"));
  CHECK(contains(refused(std::vector<double>(2, 1e300), {1, 2}), "element 0"));
  values[7] = 0;
  write_npy(folder / "x.npy", values, {4, 3});
  const auto labels = [&](const auto& content) {
    write_npy(folder / "x.labels.npy", content, {static_cast<std::int64_t>(content.size())});
    return npy_refusal(folder / "x.npy");
  };
  CHECK(contains(labels(std::vector<std::int32_t>{0, 1}), "4 samples need labels [4]"));
  CHECK(contains(labels(std::vector<std::int32_t>{0, 1, -1, 0}), "label 2 is -1"));
  CHECK(contains(labels(std::vector<std::int64_t>{0, 1, 0, 1LL << 40}), "label 3"));
  CHECK(contains(labels(std::vector<float>{0, 1, 0, 0}), "whole numbers"));
  replace_file(folder / "x.npy", std::string_view("hello"));
  CHECK_THROWS_AS(make_data_set((folder / "x.npy").string()), FormatError);
}

TEST_CASE("CIFAR-10: the binary files, planes made pixels", "[data]") {
  const ScratchFolder folder;
  // Record i: label i, red i, green 100 + i, blue 200 + i; the pixel at the lower right is 7
  // everywhere.
  const auto records = [](int count) {
    std::vector<std::byte> bytes;
    for (int i = 0; i < count; ++i) {
      bytes.push_back(static_cast<std::byte>(i));
      for (int c = 0; c < 3; ++c) {
        bytes.insert(bytes.end(), 1023, static_cast<std::byte>(100 * c + i));
        bytes.push_back(std::byte{7});
      }
    }
    return bytes;
  };
  for (int file = 1; file <= 5; ++file)
    replace_file(folder / ("data_batch_" + std::to_string(file) + ".bin"), records(file));
  CHECK(contains(npy_refusal(folder.path(), {.split = Split::test}), "test_batch.bin"));
  replace_file(folder / "test_batch.bin", records(10));
  replace_file(
      folder / "batches.meta.txt",
      std::string_view("airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"));
  const auto train = make_data_set(folder.path().string()),
             test = make_data_set(folder.path().string(), {.split = Split::test});
  CHECK(train->size() == 15);
  CHECK(test->size() == 10);
  // Half of the ten have samples.
  CHECK(train->class_names() ==
        std::vector<std::string>{"airplane", "automobile", "bird", "cat", "deer"});
  REQUIRE(train->warnings().size() == 1);
  CHECK(contains(train->warnings()[0], "no sample of class dog, frog, horse, ship, truck"));
  CHECK(test->warnings().empty());
  CHECK(test->sample_shape() == Shape{32, 32, 3});
  REQUIRE(test->classes() == 10);
  CHECK(test->class_names()[9] == "truck");
  // A record takes 3072 bytes, and 4 for its label.
  CHECK(contains(message_of<OutOfMemory>([&] {
                   make_data_set(folder.path().string(), {.memory_limit = 15 * 3076 - 1});
                 }),
                 "it takes 46140 bytes"));
  CHECK(make_data_set(folder.path().string(), {.memory_limit = 15 * 3076})->size() == 15);
  const HostBatch batch = test->batch(10, 1, 0);
  const auto level = [&](std::size_t at) {
    return static_cast<int>((batch.x[at] + 1) * 127.5f + 0.5f);
  };
  for (std::size_t i = 0; i < 10; ++i) {
    for (int c = 0; c < 3; ++c)
      CHECK(level(3072 * i + 30 + static_cast<std::size_t>(c)) == 100 * c + batch.labels[i]);
    CHECK(level(3072 * i + 3071) == 7);
  }
  replace_file(folder / "batches.meta.txt", std::string_view("airplane\nautomobile\n"));
  const auto unnamed = make_data_set(folder.path().string(), {.split = Split::test});
  CHECK(unnamed->class_names()[9] == "9");
  REQUIRE(unnamed->warnings().size() == 1);
  CHECK(contains(unnamed->warnings()[0], "batches.meta.txt: not the names of ten classes"));
  replace_file(folder / "data_batch_3.bin", std::vector<std::byte>(3073, std::byte{10}));
  CHECK(contains(npy_refusal(folder.path()), "record 0 has label 10"));
  replace_file(folder / "data_batch_3.bin", std::vector<std::byte>(3072));
  CHECK(contains(npy_refusal(folder.path()), "data_batch_3.bin: 3072 bytes"));
}
