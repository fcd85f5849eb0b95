#include "models/data/points.h"

#include <cmath>
#include <numbers>

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
  PointSet(std::string name, Draw draw) : DataSet(std::move(name), {2}, 0, std::nullopt), draw_(draw) {}

 protected:
  std::int32_t sample(std::uint64_t seed, std::uint64_t position, std::span<float> x) const override {
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

}  // namespace

std::unique_ptr<DataSet> eight_gaussians() {
  return point_set("8gaussians", [](RandomSequence& random) { return on_octagon(random, 4 / std::sqrt(2.0f), 0.5f / std::sqrt(2.0f)); });
}

std::unique_ptr<DataSet> eight_gaussians_torchcfm() {
  // The code passes sqrt(0.1) as a covariance, so the standard deviation is the fourth root of 0.1.
  return point_set("8gaussians-torchcfm", [](RandomSequence& random) { return on_octagon(random, 5, std::pow(0.1f, 0.25f)); });
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

std::unique_ptr<DataSet> pinwheel() {
  return point_set("pinwheel", [](RandomSequence& random) {
    const float radial = 1 + 0.3f * random.normal(), tangential = 0.1f * random.normal();
    const float angle = 2 * pi * static_cast<float>(random.below(5)) / 5 + 0.25f * std::exp(radial);
    return Point{2 * (radial * std::cos(angle) + tangential * std::sin(angle)), 2 * (tangential * std::cos(angle) - radial * std::sin(angle))};
  });
}

std::unique_ptr<DataSet> two_spirals() {
  return point_set("2spirals", [](RandomSequence& random) {
    const float angle = std::sqrt(random.uniform()) * 3 * pi;
    const float sign = random.below(2) == 1 ? 1.0f : -1.0f;
    const float blur_x = random.uniform() / 2, blur_y = random.uniform() / 2;
    const float dx = random.normal(), dy = random.normal();
    return Point{sign * (-std::cos(angle) * angle + blur_x) / 3 + 0.1f * dx, sign * (std::sin(angle) * angle + blur_y) / 3 + 0.1f * dy};
  });
}

}  // namespace fluxion
