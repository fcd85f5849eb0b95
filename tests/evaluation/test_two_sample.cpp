#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <numeric>

#include "backends/cpu/cpu.h"
#include "engine/error.h"
#include "models/evaluation/losses.h"
#include "models/evaluation/two_sample.h"
#include "tests/catch.h"
#include "tests/evaluation/sets.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

// mean over pairs of f(squared distance); within one set only i != j count, but the divisor is
// `divisor`.
double mean_over_pairs(const SampleSet& a, const SampleSet& b, bool same, double divisor,
                       const std::function<double(double)>& f) {
  double total = 0;
  for (std::int64_t i = 0; i < a.count; ++i)
    for (std::int64_t j = 0; j < b.count; ++j)
      if (!same || i != j) total += f(squared_distance(a, i, b, j));
  return total / divisor;
}

double energy_by_hand(const SampleSet& x, const SampleSet& y, bool unbiased) {
  const auto root = [](double squared) { return std::sqrt(squared); };
  const auto n = static_cast<double>(x.count), m = static_cast<double>(y.count);
  return 2 * mean_over_pairs(x, y, false, n * m, root) -
         mean_over_pairs(x, x, true, n * (unbiased ? n - 1 : n), root) -
         mean_over_pairs(y, y, true, m * (unbiased ? m - 1 : m), root);
}

double mmd_by_hand(const SampleSet& x, const SampleSet& y, double h) {
  const auto kernel = [h](double squared) { return std::exp(-squared / (2 * h * h)); };
  const auto n = static_cast<double>(x.count), m = static_cast<double>(y.count);
  return mean_over_pairs(x, x, true, n * (n - 1), kernel) +
         mean_over_pairs(y, y, true, m * (m - 1), kernel) -
         2 * mean_over_pairs(x, y, false, n * m, kernel);
}

SampleSet moved(SampleSet set, const std::vector<float>& by) {
  for (std::int64_t i = 0; i < set.count; ++i)
    for (std::int64_t k = 0; k < set.dim; ++k) set.row(i)[k] += by[static_cast<std::size_t>(k)];
  return set;
}

Tensor tensor(const SampleSet& set, const Device& device) {
  const std::vector<double> values(set.values.begin(), set.values.end());
  return Tensor::from(values, {set.count, set.dim}, device);
}

}  // namespace

TEST_CASE("energy distance and MMD are the sums over pairs that define them", "[evaluation]") {
  for (const std::int64_t dim : {1, 2, 8, 9, 30}) {
    const SampleSet x = gaussian(70, dim, 1), y = gaussian(45, dim, 2, 0.5f, 1.5f);
    INFO("dimension " << dim);
    CHECK(energy_distance(x, y, true) == Approx(energy_by_hand(x, y, true)).epsilon(1e-10));
    CHECK(energy_distance(x, y, false) == Approx(energy_by_hand(x, y, false)).epsilon(1e-10));
    CHECK(energy_distance(y, x, true) == Approx(energy_distance(x, y, true)).epsilon(1e-10));
    CHECK(mmd2_rbf(x, y, {.bandwidth = 0.7}) ==
          Approx(mmd_by_hand(x, y, 0.7)).epsilon(1e-10).margin(1e-14));
    const double mixture =
        (mmd_by_hand(x, y, 0.5) + mmd_by_hand(x, y, 1) + mmd_by_hand(x, y, 2)) / 3;
    CHECK(mmd2_rbf(x, y, {.bandwidth = 1, .octaves = 1}) ==
          Approx(mixture).epsilon(1e-10).margin(1e-14));
  }
}

TEST_CASE("energy distance of two Gaussians on the line meets its closed form", "[evaluation]") {
  // E|N(m, 2)| = 2 e^(-m^2/4) / sqrt pi + m erf(m/2): the difference of two unit Gaussians whose
  // means are m apart.
  const auto expected_gap = [](double m) {
    return 2 * std::exp(-m * m / 4) / std::sqrt(std::numbers::pi) + m * std::erf(m / 2);
  };
  for (const float mean : {0.0f, 0.5f, 2.0f}) {
    const double exact = 2 * expected_gap(mean) - 2 * expected_gap(0);
    // The estimate's standard error is below 2 sd|X-Y| / sqrt(n) = 0.04 for n = 3,000.
    CHECK(std::abs(energy_distance(gaussian(3000, 1, 3), gaussian(3000, 1, 4, mean)) - exact) <
          0.12);
  }
}

TEST_CASE(
    "distances vanish between equal sets, and rotations and the order of samples do not matter",
    "[evaluation]") {
  const SampleSet x = gaussian(60, 2, 5), y = gaussian(60, 2, 6, 1);
  CHECK(energy_distance(x, x, false) == Approx(0).margin(1e-12));
  CHECK(sliced_wasserstein2(x, x) == 0);
  CHECK(wasserstein2(x, x) == 0);
  CHECK(wasserstein1(x, x) == 0);

  const auto turned = [](SampleSet set) {
    for (std::int64_t i = 0; i < set.count; ++i) {
      const float a = set.row(i)[0], b = set.row(i)[1];
      set.row(i)[0] = 0.6f * a - 0.8f * b, set.row(i)[1] = 0.8f * a + 0.6f * b;
    }
    return set;
  };
  SampleSet reversed = x;
  for (std::int64_t i = 0; i < x.count; ++i)
    std::copy_n(x.row(i), 2, reversed.row(x.count - 1 - i));
  for (const auto& [a, b] : {std::pair(turned(x), turned(y)), std::pair(reversed, y)}) {
    CHECK(energy_distance(a, b) == Approx(energy_distance(x, y)).epsilon(1e-5));
    CHECK(mmd2_rbf(a, b, {.bandwidth = 1}) ==
          Approx(mmd2_rbf(x, y, {.bandwidth = 1})).epsilon(1e-5));
    CHECK(wasserstein2(a, b) == Approx(wasserstein2(x, y)).epsilon(1e-5));
  }
}

TEST_CASE("a set is no distance from itself in many dimensions, either", "[evaluation]") {
  const SampleSet x = gaussian(60, 25, 5, 4);
  CHECK(wasserstein1(x, x) == 0);
  CHECK(wasserstein2(x, x) == 0);
  CHECK(energy_distance(x, x, false) == Approx(0).margin(1e-12));
}

TEST_CASE("some samples of a set are from all over it", "[evaluation]") {
  // In the order of four classes, as folders and arrays often are.
  std::vector<float> values;
  for (int i = 0; i < 4000; ++i) values.push_back(static_cast<float>(i / 1000));
  const SampleView all{values, 4000, 1};
  const SomeSamples some(all, 400), same(all, 4000);
  REQUIRE(some.view().count == 400);
  for (int label = 0; label < 4; ++label) {
    const auto found = std::ranges::count(some.view().values, static_cast<float>(label));
    CHECK(found > 60);
    CHECK(found < 140);
  }
  CHECK(same.view().values.data() == values.data());
  check_samples(some.view(), 400, "some");
}

TEST_CASE("Wasserstein distances of a set and its translation are the translation's",
          "[evaluation]") {
  const SampleSet x = gaussian(150, 3, 7), y = moved(x, {1, -2, 2});
  CHECK(wasserstein2(x, y) == Approx(3).epsilon(1e-5));
  CHECK(wasserstein1(x, y) == Approx(3).epsilon(1e-5));
  // Every direction sees the translation's component along it, whose mean square over the sphere is
  // |a|^2 / 3.
  CHECK(sliced_wasserstein2(x, y, Slices{.directions = 4000}) ==
        Approx(3 / std::sqrt(3.0)).epsilon(0.03));
}

TEST_CASE("the assignment is the best of all permutations", "[evaluation]") {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const SampleSet x = gaussian(6, 2, 100 + seed), y = gaussian(6, 2, 200 + seed);
    std::vector<std::int64_t> order(6);
    std::iota(order.begin(), order.end(), 0);
    double best = std::numeric_limits<double>::infinity();
    do {
      double total = 0;
      for (std::int64_t i = 0; i < 6; ++i)
        total += squared_distance(x, i, y, order[static_cast<std::size_t>(i)]);
      best = std::min(best, total);
    } while (std::next_permutation(order.begin(), order.end()));
    INFO("seed " << seed);
    CHECK(wasserstein2(x, y) == Approx(std::sqrt(best / 6)).epsilon(1e-10));
  }
}

TEST_CASE("on the line every W2 is that of the sorted samples, also for sets of different sizes",
          "[evaluation]") {
  const SampleSet x = gaussian(200, 1, 8), y = gaussian(200, 1, 9, 1, 2);
  CHECK(sliced_wasserstein2(x, y) == Approx(wasserstein2(x, y)).epsilon(1e-6));
  const SampleSet one{{0}, 1, 1}, two{{1, 3}, 2, 1}, three{{0, 0, 6}, 3, 1};
  CHECK(sliced_wasserstein2(one, two) == Approx(std::sqrt((1.0 + 9.0) / 2)));
  // Quantiles on [0, 1/3), [1/3, 1/2), [1/2, 2/3), [2/3, 1): 1-0, 1-0, 3-0, 6-3.
  CHECK(sliced_wasserstein2(two, three) ==
        Approx(std::sqrt(1.0 / 3 + 1.0 / 6 + 9.0 / 6 + 9.0 / 3)));
}

TEST_CASE("the unbiased distances of equal distributions scatter around zero", "[evaluation]") {
  double energy = 0, mmd = 0;
  int negative = 0;
  constexpr int draws = 40;
  for (int draw = 0; draw < draws; ++draw) {
    const SampleSet x = gaussian(50, 2, 1000 + static_cast<std::uint64_t>(draw)),
                    y = gaussian(50, 2, 2000 + static_cast<std::uint64_t>(draw));
    const double value = energy_distance(x, y);
    negative += value < 0;
    energy += value / draws;
    mmd += mmd2_rbf(x, y, {.bandwidth = 1}) / draws;
    CHECK(energy_distance(x, y, false) > 0);
  }
  // One draw deviates by about 0.03 and 0.015; the mean of 40 by less than a sixth of that.
  CHECK(std::abs(energy) < 0.02);
  CHECK(std::abs(mmd) < 0.01);
  CHECK(negative > 5);
  CHECK(negative < draws - 5);
}

TEST_CASE("metrics do not depend on the number of threads, bit for bit", "[evaluation]") {
  for (const std::int64_t dim : {2, 40}) {
    const SampleSet x = gaussian(333, dim, 10), y = gaussian(333, dim, 11, 0.3f);
    CHECK(energy_distance(x, y, true, 1) == energy_distance(x, y, true, 3));
    CHECK(mmd2_rbf(x, y, {.bandwidth = 1, .octaves = 2}, 1) ==
          mmd2_rbf(x, y, {.bandwidth = 1, .octaves = 2}, 3));
    CHECK(sliced_wasserstein2(x, y, Slices{}, 1) == sliced_wasserstein2(x, y, Slices{}, 3));
    CHECK(wasserstein2(x, y, 1) == wasserstein2(x, y, 3));
    CHECK(wasserstein1(x, y, 1) == wasserstein1(x, y, 3));
    CHECK(median_distance(x, 1) == median_distance(x, 3));
  }
}

TEST_CASE("the median distance is that of all pairs", "[evaluation]") {
  const SampleSet x{{0, 1, 3, 7}, 4, 1};  // distances 1, 2, 3, 4, 6, 7: the upper middle one
  CHECK(median_distance(x) == Approx(4));
  CHECK(median_distance(SampleSet{{2, 2, 2, 2, 5}, 5, 1}) == 3);  // of samples that differ
  CHECK_THROWS_WITH(median_distance(SampleSet{{2, 2, 2}, 3, 1}), has_text("equal"));
}

TEST_CASE("sets that can't be compared are refused with a reason", "[evaluation]") {
  const SampleSet one = gaussian(1, 2, 1), x = gaussian(10, 2, 2), other = gaussian(10, 3, 3),
                  fewer = gaussian(9, 2, 4);
  SampleSet broken = x;
  broken.row(7)[1] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(energy_distance(one, x), has_text("at least 2"));
  CHECK(std::isfinite(energy_distance(one, x, false)));
  CHECK(std::isfinite(sliced_wasserstein2(one, x)));
  CHECK_THROWS_WITH(mmd2_rbf(x, one, {}), has_text("at least 2"));
  CHECK_THROWS_AS(energy_distance(x, other), ShapeError);
  CHECK_THROWS_AS(sliced_wasserstein2(x, other), ShapeError);
  CHECK_THROWS_AS(wasserstein2(x, fewer), ShapeError);
  CHECK_THROWS_AS(wasserstein1(x, fewer), ShapeError);
  CHECK_THROWS_WITH(energy_distance(x, broken), has_text("sample 7") && has_text("not finite"));
  CHECK_THROWS_WITH(sliced_wasserstein2(broken, x), has_text("sample 7"));
  CHECK_THROWS_AS(mmd2_rbf(x, x, {.bandwidth = 0}), Error);
  CHECK_THROWS_AS(mmd2_rbf(x, x, {.octaves = -1}), Error);
  CHECK_THROWS_AS(sliced_wasserstein2(x, x, Slices{.directions = 0}), Error);
  CHECK_THROWS_AS(energy_distance(SampleView{x.values, 9, 2}, x), ShapeError);
}

TEST_CASE("the losses are the metrics", "[evaluation]") {
  const Device device = cpu({.threads = 1});
  const SampleSet x = gaussian(20, 3, 12), y = gaussian(20, 3, 13, 1),
                  directions{{1, 0, 0, 0, 0.6f, 0.8f}, 2, 3};
  const Tensor a = tensor(x, device), b = tensor(y, device);
  for (const bool unbiased : {false, true})
    CHECK(energy_loss(a, b, unbiased).item<double>() ==
          Approx(energy_distance(x, y, unbiased)).epsilon(1e-10));
  CHECK(mmd2_rbf_loss(a, b, 1.3).item<double>() ==
        Approx(mmd2_rbf(x, y, {.bandwidth = 1.3})).epsilon(1e-10));
  const double sliced = sliced_wasserstein2(x, y, directions.view());
  CHECK(sliced_wasserstein2_loss(a, b, tensor(directions, device)).item<double>() ==
        Approx(sliced * sliced).epsilon(1e-10));
  CHECK_THROWS_AS(energy_loss(a, slice_axis(b, 1, 0, 2)), ShapeError);
  CHECK_THROWS_AS(mmd2_rbf_loss(a, slice_axis(b, 0, 0, 1), 1), ShapeError);
  CHECK_THROWS_AS(sliced_wasserstein2_loss(a, slice_axis(b, 0, 0, 5), tensor(directions, device)),
                  ShapeError);
}
