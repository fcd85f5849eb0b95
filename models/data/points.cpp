#include "models/data/points.h"

#include <cmath>
#include <numbers>
#include <string>

#include "engine/error.h"
#include "models/data/random.h"

namespace fluxion {

namespace {

constexpr float pi = std::numbers::pi_v<float>;

struct Point {
  float x, y;
};

// A set whose samples are draw(random).
template <class Draw>
class PointSet : public DataSet {
 public:
  PointSet(std::string name, Draw draw)
      : DataSet(std::move(name), {2}, 0, std::nullopt), draw_(draw) {}

 protected:
  std::int32_t sample(std::uint64_t seed, std::uint64_t position,
                      std::span<float> x) const override {
    RandomSequence random(seed, position);
    const Point point = draw_(random);
    x[0] = point.x;
    x[1] = point.y;
    return 0;
  }

 private:
  Draw draw_;
};

template <class Draw>
std::unique_ptr<DataSet> point_set(std::string name, Draw draw) {
  return std::make_unique<PointSet<Draw>>(std::move(name), draw);
}

Point on_octagon(RandomSequence& random, float radius, float deviation) {
  const float angle = static_cast<float>(random.below(8)) * pi / 4;
  const float dx = random.normal(), dy = random.normal();
  return {radius * std::cos(angle) + deviation * dx, radius * std::sin(angle) + deviation * dy};
}

// One of the circles of radius 3 k / count, k = 1 .. count, with noise.
Point on_rings(RandomSequence& random, int count, float noise) {
  const float radius = 3 * static_cast<float>(1 + random.below(count)) / static_cast<float>(count);
  const float angle = 2 * pi * random.uniform();
  const float dx = random.normal(), dy = random.normal();
  return {radius * std::cos(angle) + noise * dx, radius * std::sin(angle) + noise * dy};
}

struct Octagon {
  std::string_view name;
  double radius, deviation;
};
constexpr Octagon ffjord{"8gaussians", 4 / std::numbers::sqrt2, 0.5 / std::numbers::sqrt2};
// The code passes sqrt(0.1) as a covariance, so the standard deviation is the fourth root of 0.1.
constexpr Octagon torchcfm{"8gaussians-torchcfm", 5, 0.56234132519034908};

std::unique_ptr<DataSet> octagon_set(const Octagon& octagon) {
  const auto radius = static_cast<float>(octagon.radius),
             deviation = static_cast<float>(octagon.deviation);
  return point_set(std::string(octagon.name),
                   [=](RandomSequence& random) { return on_octagon(random, radius, deviation); });
}

}  // namespace

std::unique_ptr<DataSet> eight_gaussians() { return octagon_set(ffjord); }
std::unique_ptr<DataSet> eight_gaussians_torchcfm() { return octagon_set(torchcfm); }

PlanarMixture planar_mixture(std::string_view name) {
  for (const Octagon& octagon : {ffjord, torchcfm}) {
    if (octagon.name != name) continue;
    PlanarMixture mixture{{}, octagon.deviation};
    for (int k = 0; k < 8; ++k) {
      const double angle = k * std::numbers::pi / 4;
      mixture.centres.push_back(
          {octagon.radius * std::cos(angle), octagon.radius * std::sin(angle)});
    }
    return mixture;
  }
  throw Error("no mixture of Gaussians \"" + std::string(name) +
              "\" (8gaussians, 8gaussians-torchcfm)");
}

std::unique_ptr<DataSet> moons() {
  return point_set("moons", [](RandomSequence& random) {
    const bool inner = random.below(2) == 1;
    const float angle = pi * random.uniform();
    const float x = inner ? 1 - std::cos(angle) : std::cos(angle);
    const float y = inner ? 0.5f - std::sin(angle) : std::sin(angle);
    const float dx = random.normal(), dy = random.normal();
    return Point{3 * (x + 0.2f * dx) - 1, 3 * (y + 0.2f * dy) - 1};
  });
}

std::unique_ptr<DataSet> checkerboard() {
  return point_set("checkerboard", [](RandomSequence& random) {
    const float x = random.uniform(-2, 2);
    const float offset = random.uniform();
    const float row = offset - 2 * static_cast<float>(random.below(2));
    const float floor = std::floor(x);
    const float odd = floor - 2 * std::floor(floor / 2);
    return Point{2 * x, 2 * (row + odd)};
  });
}

bool in_checkerboard(double x, double y) {
  if (!(std::abs(x) <= 4 && std::abs(y) <= 4)) return false;
  // Cells are closed, since rounding can put a sample on their edge.
  for (const double column : {std::floor(x / 2), std::ceil(x / 2) - 1})
    for (const double row : {std::floor(y / 2), std::ceil(y / 2) - 1}) {
      const bool on_board = std::abs(column + 0.5) < 2 && std::abs(row + 0.5) < 2;
      if (on_board && std::fmod(column + row + 8, 2) == 0) return true;
    }
  return false;
}

std::unique_ptr<DataSet> pinwheel() {
  return point_set("pinwheel", [](RandomSequence& random) {
    const float radial = 1 + 0.3f * random.normal(), tangential = 0.1f * random.normal();
    const float angle = 2 * pi * static_cast<float>(random.below(5)) / 5 + 0.25f * std::exp(radial);
    return Point{2 * (radial * std::cos(angle) + tangential * std::sin(angle)),
                 2 * (tangential * std::cos(angle) - radial * std::sin(angle))};
  });
}

std::unique_ptr<DataSet> two_spirals() {
  return point_set("2spirals", [](RandomSequence& random) {
    const float angle = std::sqrt(random.uniform()) * 3 * pi;
    const float sign = random.below(2) == 1 ? 1.0f : -1.0f;
    const float blur_x = random.uniform() / 2, blur_y = random.uniform() / 2;
    const float dx = random.normal(), dy = random.normal();
    return Point{sign * (-std::cos(angle) * angle + blur_x) / 3 + 0.1f * dx,
                 sign * (std::sin(angle) * angle + blur_y) / 3 + 0.1f * dy};
  });
}

std::unique_ptr<DataSet> swiss_roll() {
  return point_set("swissroll", [](RandomSequence& random) {
    const float angle = 1.5f * pi * (1 + 2 * random.uniform());
    const float dx = random.normal(), dy = random.normal();
    return Point{(angle * std::cos(angle) + dx) / 5, (angle * std::sin(angle) + dy) / 5};
  });
}

std::unique_ptr<DataSet> circles() {
  // The noise is scaled with the circles.
  return point_set("circles",
                   [](RandomSequence& random) { return on_rings(random, 2, 3 * 0.08f); });
}

std::unique_ptr<DataSet> rings() {
  return point_set("rings", [](RandomSequence& random) { return on_rings(random, 4, 0.08f); });
}

std::unique_ptr<DataSet> cosine() {
  return point_set("cos", [](RandomSequence& random) {
    const float x = random.uniform(-2.5f, 2.5f);
    return Point{x, 2.5f * std::sin(x)};
  });
}

std::unique_ptr<DataSet> line() {
  return point_set("line", [](RandomSequence& random) {
    const float x = random.uniform(-2.5f, 2.5f);
    return Point{x, x};
  });
}

}  // namespace fluxion
