#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "models/evaluation/modes.h"
#include "models/evaluation/neighbours.h"
#include "tests/catch.h"
#include "tests/evaluation/sets.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("nearest neighbours are those of a search by hand, in parts or at once", "[evaluation]") {
  for (const std::int64_t dim : {2, 25}) {
    const SampleSet x = gaussian(40, dim, 1), base = gaussian(90, dim, 2);
    NearestSearch whole(x, 5, 1), parted(x, 5, 3);
    whole.add(base);
    for (const std::int64_t begin : {0, 30, 60})
      parted.add(
          {std::span(base.values)
               .subspan(static_cast<std::size_t>(begin * dim), static_cast<std::size_t>(30 * dim)),
           30, dim});
    const Neighbours found = whole.result();
    CHECK(found.index == parted.result().index);
    for (std::int64_t i = 0; i < x.count; ++i) {
      std::vector<std::pair<double, std::int64_t>> all;
      for (std::int64_t j = 0; j < base.count; ++j)
        all.emplace_back(squared_distance(x, i, base, j), j);
      std::sort(all.begin(), all.end());
      for (std::int64_t k = 0; k < 5; ++k) {
        REQUIRE(found.index[static_cast<std::size_t>(5 * i + k)] ==
                all[static_cast<std::size_t>(k)].second);
        REQUIRE(found.distance[static_cast<std::size_t>(5 * i + k)] ==
                Approx(std::sqrt(all[static_cast<std::size_t>(k)].first)).epsilon(1e-9));
      }
    }
  }
}

TEST_CASE("equal distances keep the order of the base; a base that is too small is refused",
          "[evaluation]") {
  const SampleSet x{{0}, 1, 1}, base{{1, -1, 1, 2}, 4, 1};
  NearestSearch search(x, 3);
  search.add({std::span(base.values).first(2), 2, 1});
  CHECK_THROWS_AS(search.result(), ShapeError);
  search.add({std::span(base.values).subspan(2), 2, 1});
  CHECK(search.result().index == std::vector<std::int64_t>{0, 1, 2});
  CHECK_THROWS_AS(search.add(gaussian(3, 2, 1)), ShapeError);
  CHECK_THROWS_AS(NearestSearch(x, 0), ShapeError);
}

TEST_CASE("precision and recall on the line, by hand", "[evaluation]") {
  // k = 1. Balls of the data: 0 +- 1, 1 +- 1, 5 +- 4. Balls of the samples: 0.5 +- 0.1, 0.6 +- 0.1,
  // 20 +- 19.4.
  const SampleSet data{{0, 1, 5}, 3, 1}, generated{{0.5f, 0.6f, 20}, 3, 1};
  const Coverage found = precision_recall(data, generated, 1);
  CHECK(found.precision == Approx(2.0 / 3));
  CHECK(found.recall == Approx(2.0 / 3));    // 20's ball reaches down to 0.6
  CHECK(found.density == Approx(4.0 / 3));   // two samples in each of two balls
  CHECK(found.coverage == Approx(2.0 / 3));  // the ball of 5 ends at 1
  CHECK_THROWS_WITH(precision_recall(data, generated, 3), has_text("at least 4"));
  CHECK_THROWS_AS(precision_recall(data, gaussian(4, 2, 1), 1), ShapeError);
}

TEST_CASE("precision and recall tell collapse from noise", "[evaluation]") {
  const SampleSet data = gaussian(800, 2, 1);
  const Coverage same = precision_recall(data, gaussian(800, 2, 2));
  CHECK(same.precision > 0.9);
  CHECK(same.recall > 0.9);
  CHECK(same.density == Approx(1).epsilon(0.1));
  const Coverage collapsed = precision_recall(data, gaussian(800, 2, 3, 0, 0.05f));
  CHECK(collapsed.precision > 0.8);
  CHECK(collapsed.recall < 0.05);
  const Coverage noise = precision_recall(data, gaussian(800, 2, 4, 0, 6));
  CHECK(noise.precision < 0.3);
  const Coverage apart = precision_recall(data, gaussian(800, 2, 5, 100));
  CHECK(apart.precision == 0);
  CHECK(apart.recall == 0);
  CHECK(apart.coverage == 0);
}

TEST_CASE("what rounding does to distances decides nothing about samples that repeat",
          "[evaluation]") {
  for (const std::int64_t dim : {2, 8, 9, 20, 200}) {
    INFO("dimension " << dim);
    // Each of 40 rows several times, far from 0; all but the first 40 in another order.
    const SampleSet rows = gaussian(40, dim, 1, 3);
    SampleSet repeated{{}, 300, dim};
    for (std::int64_t i = 0; i < repeated.count; ++i) {
      const float* row = rows.row(i < 40 ? i : i * 7 % 40);
      repeated.values.insert(repeated.values.end(), row, row + dim);
    }
    // The same samples, the last first.
    SampleSet again{{repeated.values.rbegin(), repeated.values.rend()}, repeated.count, dim};
    for (std::int64_t i = 0; i < again.count; ++i) std::reverse(again.row(i), again.row(i) + dim);
    const Coverage same = precision_recall(repeated, again);
    CHECK(same.precision == 1);
    CHECK(same.recall == 1);
    CHECK(same.coverage == 1);
    NearestSearch search(again, 3);
    search.add(repeated);
    const std::vector<double> distances = search.result().distance;
    CHECK(std::count(distances.begin(), distances.end(), 0) == std::ssize(distances));

    // The neighbour that a ball reaches to is inside: k and the sample itself.
    const SampleSet x = gaussian(150, dim, 2, 3);
    SampleSet fewer{x.values, 120, dim};
    fewer.values.resize(static_cast<std::size_t>(120 * dim));
    CHECK(precision_recall(x, x).density == Approx(4.0 / 3).epsilon(1e-12));
    CHECK(precision_recall(fewer, fewer).density == Approx(4.0 / 3).epsilon(1e-12));
  }
}

TEST_CASE("modes are counted by nearest centre within three deviations", "[evaluation]") {
  const std::vector<std::array<float, 2>> centres = {{0, 0}, {10, 0}};
  const SampleSet points{{0, 2.9f, 0, 3.1f, 10, 1, 11, 0, 9, 0, 5, 0}, 6, 2};
  const ModeCounts counts = count_modes(points, centres, 1);
  CHECK(counts.within == Approx(4.0 / 6));
  CHECK(counts.shares == std::vector<double>{0.25, 0.75});
  CHECK(counts.worst == Approx(0.25));
  CHECK(count_modes(SampleSet{{100, 100}, 1, 2}, centres, 1).within == 0);
  CHECK_THROWS_AS(count_modes(gaussian(5, 3, 1), centres, 1), ShapeError);
  CHECK_THROWS_AS(count_modes(points, {}, 1), ShapeError);
  CHECK_THROWS_AS(count_modes(points, centres, 0), Error);
}

TEST_CASE("a uniform density has half of its points on the dark squares of a board",
          "[evaluation]") {
  SampleSet points{std::vector<float>(20'000), 10'000, 2};
  RandomSequence random(1, 0);
  for (float& value : points.values) value = random.uniform(-4, 4);
  CHECK(share_on_board(points, {}) == Approx(0.5).margin(0.02));
  CHECK(share_on_board(points, {.odd = true}) == Approx(1 - share_on_board(points, {})));
  CHECK(share_on_board(SampleSet{{-5, 0, 0, 5}, 2, 2}, {}) == 0);
}
