// Divergences from counts on a grid and from a classifier, against what they are in closed form.
#include <cmath>
#include <limits>
#include <numbers>

#include "engine/error.h"
#include "models/evaluation/classifier_test.h"
#include "models/evaluation/evaluation.h"
#include "models/evaluation/planar_divergence.h"
#include "models/evaluation/two_sample.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/evaluation/sets.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// Of N(0, 1).
double normal_share_below(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

// Points on a lattice over [0, width] x [0, 1], as even as can be.
SampleSet lattice(int columns, int rows, double width) {
  SampleSet set{{}, columns * rows, 2};
  for (int i = 0; i < columns; ++i)
    for (int j = 0; j < rows; ++j) {
      set.values.push_back(static_cast<float>(width * (i + 0.5) / columns));
      set.values.push_back(static_cast<float>((j + 0.5) / rows));
    }
  return set;
}

// A blurred circle around the origin.
SampleSet circle(std::int64_t count, std::uint64_t seed, float radius) {
  SampleSet set = gaussian(count, 2, seed, 0, 0.1f);
  RandomSequence random(seed, 1);
  for (std::int64_t i = 0; i < count; ++i) {
    const float angle = random.uniform(0, 2 * std::numbers::pi_v<float>);
    set.row(i)[0] += radius * std::cos(angle);
    set.row(i)[1] += radius * std::sin(angle);
  }
  return set;
}

}  // namespace

TEST_CASE("W1 is the least mean distance over all assignments, never above W2", "[evaluation]") {
  // In one dimension, sorting assigns; here by trying all orders of six points of the plane.
  const SampleSet x = gaussian(6, 2, 5), y = gaussian(6, 2, 6, 1, 2);
  std::vector<std::int64_t> order{0, 1, 2, 3, 4, 5};
  double best = std::numeric_limits<double>::infinity();
  do {
    double total = 0;
    for (std::int64_t i = 0; i < 6; ++i)
      total += std::sqrt(squared_distance(x, i, y, order[static_cast<std::size_t>(i)]));
    best = std::min(best, total);
  } while (std::ranges::next_permutation(order).found);
  CHECK(wasserstein1(x, y) == Approx(best / 6).epsilon(1e-10));
  CHECK(wasserstein1(x, y) <= wasserstein2(x, y));
}

TEST_CASE("KL on a grid is that of the cells, smoothed as it says", "[evaluation]") {
  // The data fill the left half of what the samples fill: log 2.
  const SampleSet half = lattice(64, 128, 1), whole = lattice(128, 128, 2);
  // Points of the samples beside the box of the data share one cell.
  CHECK(planar_divergence(half, whole, {.per_axis = 8, .smoothing = 1e-9}) ==
        Approx(std::log(2)).epsilon(0.02));
  CHECK(planar_divergence(half, half, {.per_axis = 8, .smoothing = 1e-9}) ==
        Approx(0).margin(1e-9));
  // One cell each: what is smoothed shows. 3 points in a cell, 1 beside it, 2 cells of 1/2.
  const SampleSet point{{0, 0, 0, 0, 0, 0}, 3, 2}, other{{0, 0, 0, 0, 0, 0, 9, 9}, 4, 2};
  CHECK(planar_divergence(point, other, {.per_axis = 1}) == Approx(std::log(5 / 3.5)));
  // Two Gaussians: |m|^2 / 2, but for the width of the cells.
  const SampleSet a = gaussian(400000, 2, 1), b = gaussian(400000, 2, 2, 0.5f);
  CHECK(planar_divergence(a, b, {.per_axis = 48}) == Approx(0.25).epsilon(0.04));
  CHECK(planar_divergence(a, gaussian(400000, 2, 3), {.per_axis = 48}) < 0.007);

  CHECK_THROWS_AS(planar_divergence(gaussian(5, 3, 1), gaussian(5, 3, 2)), ShapeError);
  CHECK_THROWS_AS(planar_divergence(half, half, {.per_axis = 0}), Error);
  CHECK_THROWS_AS(planar_divergence(half, half, {.smoothing = 0}), Error);
  SampleSet broken = half;
  broken.values[8] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(planar_divergence(half, broken), has_text("sample 4"));
  const EvaluationData spread(make_data_set("glyphs", {.image_size = 8}));
  CHECK_THAT(message_of([&] { check_metrics({"kl"}, spread.train()); }), has_text("plane"));
}

TEST_CASE("a classifier tells two Gaussians apart as often as anything can", "[evaluation]") {
  const double error = std::sqrt(0.25 / 4000);  // of 4,000 guesses
  for (const std::int64_t dim : {1, 2, 5}) {
    INFO(dim);
    const float step = 1 / std::sqrt(static_cast<float>(dim));
    const SampleSet x = gaussian(2000, dim, 1), same = gaussian(2000, dim, 2),
                    moved = gaussian(2000, dim, 3, step), far = gaussian(2000, dim, 4, 8 * step);
    CHECK(classifier_test(x, same) == Approx(0.5).margin(4 * error));
    // The best there is: the share below half of the distance.
    CHECK(classifier_test(x, moved) == Approx(normal_share_below(0.5)).margin(4 * error));
    CHECK(classifier_test(x, moved) == classifier_test(x, moved, {}, 3));
    CHECK(classifier_test(x, far) > 0.999);
  }
  // Sets that no line tells apart: a circle, and a Gaussian with the same mean and covariance.
  const SampleSet ring = circle(2000, 7, 1.4f), blob = gaussian(2000, 2, 8, 0, 0.995f);
  CHECK(classifier_test(ring, blob) > 0.8);
  CHECK(classifier_test(ring, blob, {.features = 0}) == Approx(0.5).margin(5 * error));
  // In many dimensions, and with samples that are all the same.
  CHECK(classifier_test(gaussian(500, 100, 1), gaussian(500, 100, 2, 1)) > 0.95);
  const SampleSet still{std::vector<float>(40, 1), 20, 2};
  CHECK(classifier_test(still, still) == 0.5);

  CHECK_THROWS_AS(classifier_test(gaussian(9, 2, 1), gaussian(30, 2, 2)), ShapeError);
  CHECK_THROWS_AS(classifier_test(gaussian(9, 2, 1), gaussian(9, 3, 2)), ShapeError);
  CHECK_THROWS_AS(classifier_test(ring, blob, {.folds = 1}), Error);
  CHECK_THROWS_AS(classifier_test(ring, blob, {.ridge = 0}), Error);
}
