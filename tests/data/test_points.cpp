// The plane's sets against their definitions. Bounds are four standard errors or more of the
// samples drawn.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "engine/error.h"
#include "models/data/data_set.h"
#include "models/data/points.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

constexpr std::size_t count = 40'000;

struct Moments {
  double x = 0, y = 0, xx = 0, yy = 0, xy = 0;
};

Moments moments(const std::string& name) {
  const HostBatch batch = make_data_set(name)->batch(count, 1, 0);
  Moments sum;
  for (std::size_t i = 0; i < count; ++i) {
    const double x = batch.x[2 * i], y = batch.x[2 * i + 1];
    sum.x += x / count, sum.y += y / count, sum.xx += x * x / count, sum.yy += y * y / count,
        sum.xy += x * y / count;
  }
  return sum;
}

}  // namespace

TEST_CASE("swissroll: the moments of its definition", "[data]") {
  // Angle a in [1.5 pi, 4.5 pi]; the mean over it by the midpoint rule.
  Moments exact;
  const int steps = 100'000;
  for (int i = 0; i < steps; ++i) {
    const double a = 1.5 * std::numbers::pi * (1 + 2 * (i + 0.5) / steps), x = a * std::cos(a) / 5,
                 y = a * std::sin(a) / 5;
    exact.x += x / steps, exact.y += y / steps, exact.xx += x * x / steps,
        exact.yy += y * y / steps, exact.xy += x * y / steps;
  }
  const Moments found = moments("swissroll");
  CHECK(found.x == Approx(exact.x).margin(0.03));
  CHECK(found.y == Approx(exact.y).margin(0.03));
  CHECK(found.xx == Approx(exact.xx + 0.04).margin(0.05));
  CHECK(found.yy == Approx(exact.yy + 0.04).margin(0.05));
  CHECK(found.xy == Approx(exact.xy).margin(0.05));
}

TEST_CASE("circles and rings: equally full circles with noise", "[data]") {
  struct Rings {
    const char* name;
    std::vector<double> radii;
    double noise;
  };
  for (const Rings& rings :
       {Rings{"circles", {1.5, 3}, 0.24}, Rings{"rings", {0.75, 1.5, 2.25, 3}, 0.08}}) {
    INFO(rings.name);
    const HostBatch batch = make_data_set(rings.name)->batch(count, 1, 0);
    std::vector<double> members(rings.radii.size()), squares(rings.radii.size());
    double right = 0, above = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const double x = batch.x[2 * i], y = batch.x[2 * i + 1], radius = std::hypot(x, y);
      std::size_t nearest = 0;
      for (std::size_t k = 1; k < rings.radii.size(); ++k)
        if (std::abs(radius - rings.radii[k]) < std::abs(radius - rings.radii[nearest]))
          nearest = k;
      ++members[nearest];
      squares[nearest] += radius * radius;
      right += x > 0;
      above += y > 0;
    }
    CHECK(right == Approx(count / 2.0).margin(4 * std::sqrt(count / 4.0)));
    CHECK(above == Approx(count / 2.0).margin(4 * std::sqrt(count / 4.0)));
    for (std::size_t k = 0; k < rings.radii.size(); ++k) {
      CHECK(members[k] == Approx(count / static_cast<double>(rings.radii.size())).epsilon(0.05));
      // E |p|^2 = radius^2 + 2 noise^2. (The noise of `circles` takes one point in a thousand to
      // the other circle.)
      CHECK(squares[k] / members[k] ==
            Approx(rings.radii[k] * rings.radii[k] + 2 * rings.noise * rings.noise).epsilon(0.01));
    }
  }
}

TEST_CASE("cos and line: curves from -2.5 to 2.5", "[data]") {
  for (const std::string name : {"cos", "line"}) {
    const HostBatch batch = make_data_set(name)->batch(count, 1, 0);
    for (std::size_t i = 0; i < count; ++i) {
      const float x = batch.x[2 * i], y = batch.x[2 * i + 1];
      REQUIRE(std::abs(x) <= 2.5f);
      REQUIRE(y == Approx(name == "cos" ? 2.5 * std::sin(x) : x).margin(1e-5));
    }
    const Moments found = moments(name);
    CHECK(found.x == Approx(0).margin(4 * std::sqrt(25 / 12.0 / count)));
    CHECK(found.xx == Approx(25 / 12.0).epsilon(0.02));
  }
}

TEST_CASE("planar mixtures: samples lie about the centres as the deviation says", "[data]") {
  for (const std::string name : {"8gaussians", "8gaussians-torchcfm"}) {
    INFO(name);
    const PlanarMixture mixture = planar_mixture(name);
    REQUIRE(mixture.centres.size() == 8);
    const HostBatch batch = make_data_set(name)->batch(count, 1, 0);
    double square = 0;
    std::array<int, 8> members{};
    for (std::size_t i = 0; i < count; ++i) {
      std::array<double, 8> distances{};
      for (std::size_t k = 0; k < 8; ++k)
        distances[k] = std::hypot(batch.x[2 * i] - mixture.centres[k][0],
                                  batch.x[2 * i + 1] - mixture.centres[k][1]);
      const auto nearest = std::min_element(distances.begin(), distances.end());
      ++members[static_cast<std::size_t>(nearest - distances.begin())];
      square += *nearest * *nearest / count;
    }
    CHECK(std::sqrt(square / 2) == Approx(mixture.deviation).epsilon(0.02));
    for (const int hits : members) CHECK(hits == Approx(count / 8).epsilon(0.06));
  }
  CHECK_THROWS_AS(planar_mixture("moons"), Error);
}

TEST_CASE("checkerboard: every sample is on a dark cell, and half of the board is dark", "[data]") {
  const HostBatch batch = make_data_set("checkerboard")->batch(count, 1, 0);
  for (std::size_t i = 0; i < count; ++i)
    REQUIRE(in_checkerboard(batch.x[2 * i], batch.x[2 * i + 1]));
  int dark = 0;
  for (int x = 0; x < 40; ++x)
    for (int y = 0; y < 40; ++y) dark += in_checkerboard(-4.9 + 0.25 * x, -4.9 + 0.25 * y);
  CHECK(dark == 512);  // of 32 x 32 grid points on the board
  CHECK(in_checkerboard(1, 1));
  CHECK_FALSE(in_checkerboard(3, 1));
  CHECK(in_checkerboard(4, 3));  // edges belong to it
  CHECK_FALSE(in_checkerboard(5, 1));
  CHECK_FALSE(in_checkerboard(std::nan(""), 1));
}
