#include <cmath>
#include <limits>

#include "engine/error.h"
#include "models/evaluation/frechet.h"
#include "tests/catch.h"
#include "tests/evaluation/sets.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("Frechet distance of Gaussians along the axes is that of means and deviations",
          "[evaluation]") {
  const Moments a{{1, 2}, {4, 0, 0, 9}}, b{{0, 4}, {1, 0, 0, 25}};
  CHECK(frechet_distance(a, b) == Approx(1 + 4 + (2 - 1) * (2 - 1) + (3 - 5) * (3 - 5)));
  CHECK(frechet_distance(b, a) == Approx(frechet_distance(a, b)));
  CHECK(frechet_distance(a, a) == Approx(0).margin(1e-12));
}

TEST_CASE(
    "Frechet distance of Gaussians that do not commute meets the closed form for two dimensions",
    "[evaluation]") {
  // tr (C1 C2)^1/2 = sqrt(tr C1 C2 + 2 sqrt(det C1 C2)) for 2 x 2 matrices.
  const Moments a{{0, 0}, {2, 1, 1, 3}}, b{{0, 0}, {5, -2, -2, 1}};
  const double trace = 2 * 5 + 1 * -2 + 1 * -2 + 3 * 1, determinant = (2 * 3 - 1) * (5 * 1 - 4);
  CHECK(frechet_distance(a, b) ==
        Approx(5 + 6 - 2 * std::sqrt(trace + 2 * std::sqrt(determinant))));
}

TEST_CASE("Frechet distance bears singular covariances", "[evaluation]") {
  const Moments flat{{0, 0}, {1, 1, 1, 1}}, point{{3, 4}, {0, 0, 0, 0}},
      crossed{{0, 0}, {1, -1, -1, 1}};
  CHECK(frechet_distance(flat, point) == Approx(25 + 2));
  CHECK(frechet_distance(flat, flat) == Approx(0).margin(1e-7));
  CHECK(frechet_distance(flat, crossed) ==
        Approx(4));  // orthogonal lines share nothing: tr C1 + tr C2
  // A feature that never fires gives a row of zeros; more features than samples, a covariance of
  // low rank.
  const SampleSet few = gaussian(5, 20, 1);
  CHECK(frechet_distance(moments(few), moments(few)) == Approx(0).margin(1e-6));
}

TEST_CASE("moments are the mean and the unbiased covariance", "[evaluation]") {
  const SampleSet x{{1, 2, 3, 6, 5, 4}, 3, 2};
  const Moments found = moments(x);
  CHECK(found.mean == std::vector<double>{3, 4});
  CHECK(found.covariance[0] == Approx(4));
  CHECK(found.covariance[1] == Approx(2));
  CHECK(found.covariance[2] == Approx(2));
  CHECK(found.covariance[3] == Approx(4));
  CHECK_THROWS_WITH(moments(gaussian(1, 2, 1)), has_text("at least 2"));
  CHECK_THROWS_AS(frechet_distance(found, moments(gaussian(4, 3, 1))), ShapeError);
  CHECK_THROWS_AS(frechet_distance({{0, 0}, {1, 0}}, found), ShapeError);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(frechet_distance({{0, 0}, {1, nan, nan, 1}}, found), has_text("not finite"));
}

TEST_CASE("Frechet distance of samples approaches that of their distributions", "[evaluation]") {
  const double exact = 3 * (0.5 * 0.5 + (1 - 2) * (1 - 2));
  CHECK(frechet_distance(moments(gaussian(20'000, 3, 2)),
                         moments(gaussian(20'000, 3, 3, 0.5f, 2))) == Approx(exact).epsilon(0.05));
}
