#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "engine/error.h"
#include "models/evaluation/evaluation.h"
#include "models/evaluation/memorisation.h"
#include "tests/catch.h"
#include "tests/evaluation/sets.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// A finite set of 4 x 4 images, each of one level of its own.
class Levels : public DataSet {
 public:
  explicit Levels(std::int64_t size, float offset = 0, std::int32_t classes = 0)
      : DataSet("levels", {4, 4, 1}, classes, size), offset_(offset) {}

 protected:
  std::int32_t sample(std::uint64_t, std::uint64_t position, std::span<float> x) const override {
    std::fill(x.begin(), x.end(), static_cast<float>(position) / 100 - 1 + offset_);
    return 0;
  }

 private:
  float offset_;
};

std::set<float> levels_of(const HostBatch& batch) {
  std::set<float> result;
  for (std::size_t i = 0; i < batch.x.size(); i += 16) result.insert(batch.x[i]);
  return result;
}

std::vector<Measurement> measured(const SampleSet& samples, const EvaluationData& data,
                                  const std::vector<std::string>& metrics, std::int64_t draws = 2) {
  return evaluate_samples(samples, {}, data, nullptr, {.metrics = metrics, .draws = draws});
}

SampleSet data_points(const std::string& name, std::int64_t count, std::uint64_t seed) {
  return {make_data_set(name)->batch(count, seed, 0).x, count, 2};
}

}  // namespace

TEST_CASE("reference and fresh draws of a finite set never share a sample", "[evaluation]") {
  const EvaluationData divided(std::make_shared<Levels>(100));
  CHECK_FALSE(divided.held_out());
  CHECK(divided.draws(20, 10) == 2);
  CHECK(divided.draws(51, 10) == 0);
  const std::set<float> reference = levels_of(divided.reference(1000)),
                        first = levels_of(divided.fresh(20, 0)),
                        second = levels_of(divided.fresh(20, 1));
  CHECK(reference.size() == 50);
  std::set<float> all = reference;
  all.insert(first.begin(), first.end());
  all.insert(second.begin(), second.end());
  CHECK(all.size() == 90);
  CHECK(levels_of(divided.reference(10)).size() == 10);

  // What a classifier is trained on is the other half, each once an epoch.
  const std::set<float> training = levels_of(divided.training(50, 3, 0)),
                        later = levels_of(divided.training(25, 3, 2));
  CHECK(training.size() == 50);
  for (const float level : training) CHECK_FALSE(reference.contains(level));
  for (const float level : later) CHECK(training.contains(level));

  const EvaluationData tested(std::make_shared<Levels>(100), std::make_shared<Levels>(30, 0.005f));
  CHECK(tested.held_out());
  CHECK(levels_of(tested.reference(1000)).size() == 30);
  CHECK(tested.draws(20, 10) == 5);
  CHECK(levels_of(tested.training(100, 3, 0)).size() == 100);
  CHECK_THROWS_AS(EvaluationData(std::make_shared<Levels>(1)), Error);
  CHECK_THROWS_AS(EvaluationData(std::make_shared<Levels>(10), make_data_set("glyphs")),
                  ShapeError);
}

TEST_CASE("real samples measure as their noise floor, others above it", "[evaluation]") {
  const EvaluationData data(make_data_set("8gaussians"));
  const std::vector<std::string> metrics = {
      "sliced-wasserstein", "energy", "mmd", "wasserstein", "kl", "wasserstein-1", "c2st"};
  const std::vector<Measurement> real =
      measured(data_points("8gaussians", 400, 77), data, metrics, 4);
  const std::vector<Measurement> wrong = measured(data_points("moons", 400, 77), data, metrics, 4);
  REQUIRE(real.size() == metrics.size());
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    INFO(metrics[i]);
    CHECK(real[i].name == metrics[i]);
    CHECK(real[i].draws == 4);
    CHECK(real[i].floor.value() == wrong[i].floor.value());
    CHECK(std::abs(real[i].value - *real[i].floor) < 0.2 * (wrong[i].value - *wrong[i].floor));
  }
}

TEST_CASE("modes of the built-in densities are where their samples are", "[evaluation]") {
  for (const std::string name : {"8gaussians", "8gaussians-torchcfm"}) {
    const std::vector<Measurement> found =
        measured(data_points(name, 4000, 77), EvaluationData(make_data_set(name)), {"modes"});
    REQUIRE(found.size() == 2);
    CHECK(found[0].value == Approx(1 - std::exp(-4.5)).margin(0.006));
    CHECK(found[1].value < 0.03);
    CHECK(found[1].parts.size() == 8);
    CHECK(std::accumulate(found[1].parts.begin(), found[1].parts.end(), 0.0) == Approx(1));
  }
  const EvaluationData board(make_data_set("checkerboard"));
  const std::vector<Measurement> on_board =
      measured(data_points("checkerboard", 2000, 77), board, {"modes"});
  CHECK(on_board.at(0).value == 1);
  CHECK(on_board.at(0).floor == 1.0);
  CHECK_THROWS_WITH(
      measured(data_points("moons", 10, 1), EvaluationData(make_data_set("moons")), {"modes"}),
      has_text("moons"));
}

TEST_CASE("points are their own features", "[evaluation]") {
  const EvaluationData data(make_data_set("moons"));
  const std::vector<Measurement> found =
      measured(data_points("moons", 300, 77), data, {"frechet", "recall"});
  REQUIRE(found.size() == 5);
  CHECK(found[0].name == "frechet");
  CHECK(found[0].large_draw == 10'000);
  CHECK(found[0].large_floor.value() < 0.05);
  CHECK(found[2].name == "recall");
  CHECK(found[2].value > 0.85);
}

TEST_CASE("what can't be measured is refused with a reason", "[evaluation]") {
  const EvaluationData points(make_data_set("moons")),
      digits(make_data_set("glyphs", {.image_size = 8}));
  const SampleSet x = data_points("moons", 20, 1), images{digits.reference(5).x, 5, 64};
  CHECK_THROWS_WITH(measured(x, points, {"magic"}), has_text("magic") && has_text("energy"));
  CHECK_THROWS_WITH(measured(x, points, {"classifier"}), has_text("labelled"));
  CHECK_THROWS_WITH(measured(images, digits, {"frechet"}), has_text("classifier"));
  CHECK_THROWS_AS(measured(images, points, {"energy"}), ShapeError);
  CHECK_THROWS_WITH(measured(gaussian(1, 2, 1), points, {"energy"}), has_text("at least 2"));
  CHECK_THROWS_WITH(measured(gaussian(9, 2, 1), points, {"c2st"}), has_text("at least 10"));
  CHECK_THROWS_WITH(measured(x, points, {"dimension"}), has_text("of a model"));
  CHECK_THROWS_AS(nearest_training(x, points), ShapeError);
}

TEST_CASE("without fresh draws there is no floor", "[evaluation]") {
  const std::vector<Measurement> found =
      measured(data_points("moons", 50, 1), EvaluationData(make_data_set("moons")), {"energy"}, 0);
  CHECK_FALSE(found.at(0).floor.has_value());
  const std::vector<Measurement> frechet =
      measured(data_points("moons", 50, 1), EvaluationData(make_data_set("moons")), {"frechet"}, 0);
  CHECK_FALSE(frechet.at(0).floor.has_value());
  CHECK_FALSE(frechet.at(0).large_floor.has_value());
  // A set too small for a draw of that size is compared with draws as large as its reference, and
  // says so.
  const SampleSet samples{std::vector<float>(16 * 60, 0.0f), 60, 16};
  const Measurement small =
      measured(samples, EvaluationData(std::make_shared<Levels>(100)), {"energy"}).at(0);
  CHECK(small.draws == 1);
  CHECK(small.floor_count == 50);
  CHECK(small.note.find("floor: 50 real samples") != std::string::npos);
}

TEST_CASE("copies of training images are found", "[evaluation]") {
  const auto train = std::make_shared<Levels>(100);
  const EvaluationData data(train, std::make_shared<Levels>(30, 0.004f));
  const SampleSet copies{train->batch(20, 5, 0).x, 20, 16};
  const NearestTraining found =
      nearest_training(copies, data, {.count = 15, .shown = 3, .columns = 2});
  CHECK(found.searched == 100);
  CHECK(found.median == Approx(0).margin(1e-9));
  CHECK(found.held_out_median.value() ==
        Approx(0.016).epsilon(0.01));  // 0.004 in each of 16 pixels
  CHECK(found.of_samples.index.size() == 30);
  CHECK(found.picture.width > found.picture.height);  // 4 tiles by 3
}

namespace {

// Sample i is of class i mod the number of names, a 4 x 4 image of level i / 100 - 1.
class Turns : public Levels {
 public:
  Turns(std::int64_t size, const std::vector<std::string>& names)
      : Levels(size, 0, static_cast<std::int32_t>(names.size())) {
    number_classes(names);
  }

 protected:
  std::int32_t sample(std::uint64_t seed, std::uint64_t position,
                      std::span<float> x) const override {
    Levels::sample(seed, position, x);
    return stored_labels()[position];
  }
  std::vector<std::int32_t> stored_labels() const override {
    std::vector<std::int32_t> labels;
    for (std::int64_t i = 0; i < *size(); ++i)
      labels.push_back(static_cast<std::int32_t>(i % classes()));
    return labels;
  }
};

}  // namespace

TEST_CASE("the labels of a test part are numbers of the training part's classes", "[evaluation]") {
  const auto train = std::make_shared<Turns>(90, numbered_classes(3));
  const auto test = std::make_shared<Turns>(30, numbered_classes(3));
  test->number_classes({"2", "1", "0"});
  const EvaluationData data(train, test);
  const HostBatch reference = data.reference(30);
  for (std::size_t i = 0; i < 30; ++i)
    CHECK(std::lround((reference.x[16 * i] + 1) * 100) % 3 == reference.labels[i]);
  CHECK(data.unseen_classes().empty());
  CHECK_THROWS_WITH(EvaluationData(train, std::make_shared<Turns>(30, numbered_classes(4))),
                    has_text("the test part has 3, which the training part lacks"));
}

TEST_CASE("classes that lie in the reference alone are known", "[evaluation]") {
  // A sample of each: half of them are the reference.
  const EvaluationData data(std::make_shared<Turns>(20, numbered_classes(20)));
  const std::vector<std::int32_t> unseen = data.unseen_classes();
  CHECK(unseen.size() == 10);
  const HostBatch reference = data.reference(20);
  for (const std::int32_t label : reference.labels)
    CHECK(std::count(unseen.begin(), unseen.end(), label) == 1);
  CHECK(EvaluationData(std::make_shared<Turns>(40, numbered_classes(2))).unseen_classes().empty());
  CHECK(EvaluationData(make_data_set("glyphs")).unseen_classes().empty());
}

TEST_CASE("mmd bears data of which most are equal, and refuses those of which all are",
          "[evaluation]") {
  // Empty images, but for every eighth.
  class Blank : public DataSet {
   public:
    explicit Blank(std::int64_t drawn) : DataSet("blank", {4, 4, 1}, 0, 200), drawn_(drawn) {}

   protected:
    std::int32_t sample(std::uint64_t, std::uint64_t position, std::span<float> x) const override {
      const auto i = static_cast<std::int64_t>(position);
      std::fill(x.begin(), x.end(), i % 8 == 0 && i < drawn_ ? static_cast<float>(i) / 200 : -1.0f);
      return 0;
    }

   private:
    std::int64_t drawn_;
  };
  const EvaluationData data(std::make_shared<Blank>(200)), empty(std::make_shared<Blank>(0));
  const SampleSet samples{data.fresh(40, 0).x, 40, 16};
  const std::vector<Measurement> found = measured(samples, data, {"energy", "mmd"});
  REQUIRE(found.size() == 2);
  CHECK(std::isfinite(found[1].value));
  CHECK_THROWS_WITH(
      check_counts({"energy", "mmd"}, 40, empty),
      has_text("mmd needs real samples that differ") && has_text("first 40 of blank"));
  CHECK_NOTHROW(check_counts({"energy"}, 40, empty));
}

TEST_CASE("too few samples are told before anything is measured", "[evaluation]") {
  const EvaluationData data(make_data_set("moons")), small(std::make_shared<Levels>(6));
  CHECK_NOTHROW(check_counts({"recall", "frechet", "classifier", "energy", "mmd"}, 4, data));
  CHECK_THROWS_WITH(check_counts({"recall"}, 3, data), has_text("recall needs at least 4 samples"));
  CHECK_THROWS_WITH(check_counts({"frechet"}, 1, data), has_text("frechet needs at least 2"));
  CHECK_THROWS_WITH(check_counts({"recall"}, 100, small), has_text("levels has 3"));
  CHECK_NOTHROW(check_counts({"frechet"}, 100, small));
}
