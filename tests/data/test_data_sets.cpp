#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <numbers>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "models/data/data_set.h"
#include "models/data/glyphs.h"
#include "models/files/gz.h"
#include "tests/catch.h"
#include "tests/data/pictures.h"
#include "tests/files/scratch.h"

using namespace fluxion;
using namespace fluxion::testing;
#if __has_include(<catch2/catch_all.hpp>)
using Catch::Approx;
#endif

namespace {

std::vector<std::byte> idx(std::vector<std::uint32_t> sizes,
                           const std::vector<std::uint8_t>& values) {
  std::vector<std::byte> bytes{std::byte{0}, std::byte{0}, std::byte{8},
                               static_cast<std::byte>(sizes.size())};
  for (const std::uint32_t size : sizes)
    for (int shift = 24; shift >= 0; shift -= 8)
      bytes.push_back(static_cast<std::byte>(size >> shift));
  for (const std::uint8_t value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

// Seven images of 4 x 4; image k is 10 k everywhere and has label k.
void write_images(const ScratchFolder& folder, const std::string& part, bool compressed) {
  std::vector<std::uint8_t> pixels, labels;
  for (int k = 0; k < 7; ++k) {
    pixels.insert(pixels.end(), 16, static_cast<std::uint8_t>(10 * k));
    labels.push_back(static_cast<std::uint8_t>(k));
  }
  const auto write = [&](const std::string& name, const std::vector<std::byte>& bytes) {
    replace_file(folder / (name + (compressed ? ".gz" : "")), compressed ? gzip(bytes) : bytes);
  };
  write(part + "-images-idx3-ubyte", idx({7, 4, 4}, pixels));
  write(part + "-labels-idx1-ubyte", idx({7}, labels));
}

// MNIST, where this machine has it.
std::filesystem::path mnist_folder() {
  const char* const given = std::getenv("FLUXION_SHARED");
  const std::filesystem::path shared =
      given != nullptr ? std::filesystem::path(given)
                       : std::filesystem::path(FLUXION_SOURCE_DIR).parent_path() / "shared";
  return shared / "data" / "mnist";
}

}  // namespace

TEST_CASE("data sets: a batch depends on seed and step alone, and steps go on where the last ended",
          "[data]") {
  for (const DataSetDescription& description : built_in_data_sets()) {
    INFO(description.name);
    const auto set = make_data_set(description.name);
    CHECK(set->name() == description.name);
    CHECK_FALSE(set->size());
    const HostBatch batch = set->batch(8, 3, 5),
                    again = make_data_set(description.name)->batch(8, 3, 5);
    CHECK(batch.x == again.x);
    CHECK(batch.labels == again.labels);
    CHECK(batch.x.size() == static_cast<std::size_t>(8 * set->sample_shape().elements()));
    CHECK(batch.labels.size() == 8);
    CHECK(batch.x != set->batch(8, 3, 6).x);
    CHECK(batch.x != set->batch(8, 4, 5).x);
    // Two batches of four are one of eight.
    HostBatch halves = set->batch(4, 3, 10);
    const HostBatch second = set->batch(4, 3, 11);
    halves.x.insert(halves.x.end(), second.x.begin(), second.x.end());
    CHECK(halves.x == batch.x);
    for (const float value : batch.x) REQUIRE(std::isfinite(value));
  }
}

TEST_CASE("data sets: an unknown name lists the known ones", "[data]") {
  const std::string message = message_of([] { make_data_set("cat-pictures"); });
  CHECK(contains(message, "cat-pictures"));
  for (const DataSetDescription& description : built_in_data_sets())
    CHECK(contains(message, description.name));
  CHECK_THROWS_AS(make_data_set(""), Error);
  CHECK(contains(message_of([] { make_data_set("moons", {.image_size = 8}); }), "no image size"));
}

TEST_CASE("8gaussians: each centre gets an eighth of the points, with the stated spread",
          "[data]") {
  struct Variant {
    const char* name;
    double radius, deviation;
  };
  for (const Variant& variant : {Variant{"8gaussians", 4 / std::sqrt(2.0), 0.5 / std::sqrt(2.0)},
                                 Variant{"8gaussians-torchcfm", 5, std::pow(0.1, 0.25)}}) {
    INFO(variant.name);
    const int count = 40'000;
    const HostBatch batch = make_data_set(variant.name)->batch(count, 1, 0);
    struct Cluster {
      int count = 0;
      double x = 0, y = 0, square = 0;
    };
    std::array<Cluster, 8> clusters;
    for (std::size_t i = 0; i < count; ++i) {
      const double x = batch.x[2 * i], y = batch.x[2 * i + 1];
      const auto k =
          static_cast<std::size_t>(std::lround(std::atan2(y, x) * 4 / std::numbers::pi) + 8) % 8;
      const double cx = variant.radius * std::cos(static_cast<double>(k) * std::numbers::pi / 4);
      const double cy = variant.radius * std::sin(static_cast<double>(k) * std::numbers::pi / 4);
      Cluster& cluster = clusters[k];
      ++cluster.count;
      cluster.x += x - cx;
      cluster.y += y - cy;
      cluster.square += (x - cx) * (x - cx) + (y - cy) * (y - cy);
    }
    for (const Cluster& cluster : clusters) {
      CHECK(cluster.count == Approx(count / 8).epsilon(0.06));
      CHECK(std::abs(cluster.x / cluster.count) < 0.04);
      CHECK(std::abs(cluster.y / cluster.count) < 0.04);
      CHECK(std::sqrt(cluster.square / cluster.count / 2) ==
            Approx(variant.deviation).epsilon(0.03));
    }
  }
}

TEST_CASE("checkerboard: eight cells of sixteen, equally full", "[data]") {
  const int count = 40'000;
  const HostBatch batch = make_data_set("checkerboard")->batch(count, 1, 0);
  std::map<std::pair<int, int>, int> cells;
  for (std::size_t i = 0; i < count; ++i)
    ++cells[{static_cast<int>(std::floor(batch.x[2 * i] / 2)),
             static_cast<int>(std::floor(batch.x[2 * i + 1] / 2))}];
  CHECK(cells.size() == 8);
  for (const auto& [cell, hits] : cells) {
    INFO(cell.first << ", " << cell.second);
    CHECK((cell.first + cell.second + 8) % 2 == 0);
    CHECK(std::max(std::abs(cell.first + 0.5), std::abs(cell.second + 0.5)) < 2);
    CHECK(hits == Approx(count / 8).epsilon(0.06));
  }
}

TEST_CASE("moons: two half circles of radius 3", "[data]") {
  const int count = 20'000;
  const HostBatch batch = make_data_set("moons")->batch(count, 1, 0);
  double x = 0, y = 0;
  for (std::size_t i = 0; i < count; ++i) {
    x += batch.x[2 * i];
    y += batch.x[2 * i + 1];
  }
  CHECK(x / count == Approx(0.5).margin(0.1));    // 3 * 1/2 - 1
  CHECK(y / count == Approx(-0.25).margin(0.1));  // 3 * 1/4 - 1
}

TEST_CASE("glyphs: images in range, ink away from the border, all ten digits", "[data]") {
  for (const std::int64_t size : {8, 16, 28, 40}) {
    INFO(size);
    const auto set = make_data_set("glyphs", {.image_size = size});
    CHECK(set->sample_shape() == Shape{size, size, 1});
    CHECK(set->classes() == 10);
    const std::size_t count = 1000, pixels = static_cast<std::size_t>(size * size);
    const HostBatch batch = set->batch(count, 1, 0);
    std::array<int, 10> labels{};
    for (std::size_t i = 0; i < count; ++i) {
      const auto image = std::span(batch.x).subspan(i * pixels, pixels);
      ++labels[static_cast<std::size_t>(batch.labels[i])];
      const auto [low, high] = std::minmax_element(image.begin(), image.end());
      REQUIRE(*low == -1);
      REQUIRE(*high > 0);
      REQUIRE(*high <= 1);
      for (std::size_t edge = 0; edge < static_cast<std::size_t>(size); ++edge)
        REQUIRE(image[edge] == -1);
    }
    for (const int hits : labels) CHECK(hits > 50);
  }
  CHECK_THROWS_AS(glyphs(7), Error);
  CHECK_THROWS_AS(glyphs(513), Error);
}

TEST_CASE("glyphs: images of one digit resemble each other more than those of others", "[data]") {
  const auto set = glyphs(28);
  const HostBatch train = set->batch(4000, 1, 0), test = set->batch(500, 2, 0);
  // Nearest centroid: crude, but far above the tenth that chance would give if digits were drawn
  // wrongly.
  std::array<std::vector<double>, 10> centroid;
  std::array<int, 10> members{};
  for (auto& mean : centroid) mean.assign(784, 0);
  for (std::size_t i = 0; i < 4000; ++i) {
    const auto label = static_cast<std::size_t>(train.labels[i]);
    ++members[label];
    for (std::size_t p = 0; p < 784; ++p) centroid[label][p] += train.x[i * 784 + p];
  }
  int correct = 0;
  for (std::size_t i = 0; i < 500; ++i) {
    std::size_t best = 0;
    double best_distance = 1e30;
    for (std::size_t label = 0; label < 10; ++label) {
      double distance = 0;
      for (std::size_t p = 0; p < 784; ++p)
        distance += std::pow(centroid[label][p] / members[label] - test.x[i * 784 + p], 2);
      if (distance < best_distance) best_distance = distance, best = label;
    }
    correct += best == static_cast<std::size_t>(test.labels[i]);
  }
  CHECK(correct > 250);
}

TEST_CASE("IDX folders: plain and compressed files, both splits, whole epochs", "[data]") {
  for (const bool compressed : {false, true}) {
    const ScratchFolder folder;
    write_images(folder, "train", compressed);
    write_images(folder, "t10k", compressed);
    for (const Split split : {Split::train, Split::test}) {
      const auto set = make_data_set(folder.path().string(), {.split = split});
      CHECK(set->sample_shape() == Shape{4, 4, 1});
      CHECK(set->classes() == 7);
      CHECK(set->size() == 7);
      const HostBatch epoch = set->batch(7, 1, 0);
      std::vector<std::int32_t> labels = epoch.labels;
      for (std::size_t i = 0; i < 7; ++i)
        CHECK(epoch.x[i * 16] == static_cast<float>(10 * labels[i]) / 127.5f - 1.0f);
      std::sort(labels.begin(), labels.end());
      CHECK(labels == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6});
      CHECK(set->batch(7, 1, 0).labels == epoch.labels);
      CHECK(set->batch(7, 1, 1).labels != epoch.labels);
    }
    const auto small = make_data_set(folder.path().string(), {.image_size = 3});
    const HostBatch batch = small->batch(7, 1, 0);
    CHECK(small->sample_shape() == Shape{3, 3, 1});
    CHECK(batch.x[4] == static_cast<float>(10 * batch.labels[0]) / 127.5f - 1.0f);
    const std::string file =
        (folder / ("train-images-idx3-ubyte" + std::string(compressed ? ".gz" : ""))).string();
    CHECK(make_data_set(file)->classes() == 7);
    CHECK_THROWS_AS(make_data_set(file, {.split = Split::test}), NoTestPart);
  }
}

TEST_CASE("IDX folders: what is missing or does not fit is named", "[data]") {
  const ScratchFolder folder;
  const auto why = [&] { return message_of([&] { make_data_set(folder.path().string()); }); };
  CHECK(contains(why(), "train-images-idx3-ubyte[.gz]"));
  write_images(folder, "t10k", false);
  CHECK(contains(why(), "train-images-idx3-ubyte[.gz] is not there"));
  write_images(folder, "train", false);
  const ScratchFolder whole;
  write_images(whole, "train", false);
  CHECK_THROWS_AS(make_data_set(whole.path().string(), {.split = Split::test}), NoTestPart);
  std::filesystem::remove(folder / "train-labels-idx1-ubyte");
  CHECK(contains(why(), "train-labels-idx1-ubyte"));
  CHECK(make_data_set(folder.path().string(), {.labels = false})->size() == 7);
  replace_file(folder / "train-labels-idx1-ubyte", idx({3}, {1, 2, 3}));
  CHECK(contains(why(), "7 samples need labels"));
  replace_file(folder / "train-images-idx3-ubyte", idx({0, 4, 4}, {}));
  CHECK(contains(why(), "no images"));
  replace_file(folder / "train-images-idx3-ubyte", idx({4}, {1, 2, 3, 4}));
  CHECK(contains(why(), "[count, rows, columns]"));
  // Labels are optional beside a single file.
  const ScratchFolder alone;
  replace_file(alone / "images", idx({2, 1, 1}, {0, 255}));
  const auto set = make_data_set((alone / "images").string());
  CHECK(set->classes() == 0);
  CHECK(set->batch(2, 1, 0).labels == std::vector<std::int32_t>{0, 0});
}

TEST_CASE("MNIST is read where it is", "[data]") {
  const std::filesystem::path folder = mnist_folder();
  if (!std::filesystem::exists(folder)) {
    WARN("skipped: " << folder << " is not there");
    return;
  }
  const auto train = make_data_set(folder.string()),
             test = make_data_set(folder.string(), {.split = Split::test});
  CHECK(train->size() == 60'000);
  CHECK(test->size() == 10'000);
  CHECK(train->sample_shape() == Shape{28, 28, 1});
  CHECK(train->classes() == 10);
  const HostBatch batch = train->batch(1000, 1, 0);
  double mean = 0;
  for (const float value : batch.x) mean += (value + 1) / 2;
  CHECK(mean / static_cast<double>(batch.x.size()) == Approx(0.1307).epsilon(0.05));
  CHECK(make_data_set(folder.string(), {.image_size = 16, .split = Split::test})->sample_shape() ==
        Shape{16, 16, 1});
}
