// What training is for: a short run already draws good samples in one evaluation of the network.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "backends/cpu/cpu.h"
#include "models/data/points.h"
#include "models/samplers/sampler.h"
#include "models/training/trainer.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

constexpr std::int64_t count = 4000;

// Points of 8gaussians' plane, judged by the nearest centre.
struct Judgement {
  double near = 0;  // share within three standard deviations of a centre; of the data 98.9 %
  double smallest = 1, largest = 0;  // share of a centre
};
Judgement judge(const std::vector<float>& points) {
  std::array<double, 8> shares{};
  Judgement result;
  for (std::size_t i = 0; i < points.size(); i += 2) {
    std::array<double, 8> distances{};
    for (std::size_t k = 0; k < 8; ++k) {
      const double angle = static_cast<double>(k) * std::numbers::pi / 4,
                   radius = 4 / std::numbers::sqrt2;
      distances[k] = std::hypot(points[i] - radius * std::cos(angle),
                                points[i + 1] - radius * std::sin(angle));
    }
    const auto nearest = std::min_element(distances.begin(), distances.end());
    shares[static_cast<std::size_t>(nearest - distances.begin())] +=
        2.0 / static_cast<double>(points.size());
    if (*nearest <= 3 * 0.5 / std::numbers::sqrt2)
      result.near += 2.0 / static_cast<double>(points.size());
  }
  result.smallest = *std::min_element(shares.begin(), shares.end());
  result.largest = *std::max_element(shares.begin(), shares.end());
  return result;
}

}  // namespace

TEST_CASE("after a short run of MeanFlow, one evaluation per sample finds all eight Gaussians",
          "[training]") {
  TrainingConfig config{.network = MlpConfig{.hidden = {64, 64}, .frequencies = 3},
                        .method = configure("meanflow", {}, SampleKind::points),
                        .optimiser = {.clip_norm = 1, .ema_decays = {0.99}},
                        .schedule = {.learning_rate = 4e-3},
                        .batch = 256,
                        .seed = 1};
  Trainer trainer(config, eight_gaussians(), cpu({.threads = 1}));
  const auto samples = [&] {
    return Sampler(config.network, trainer.model(Weights::average).parameters)
        .sample(count, 1000, 5);
  };
  const Judgement before = judge(samples());
  CHECK(before.near < 0.5);
  for (int step = 0; step < 1500; ++step) trainer.step();
  const Judgement after = judge(samples());
  INFO(before.near << " " << after.near << ", shares " << after.smallest << " to "
                   << after.largest);
  CHECK(after.near > 0.75);
  CHECK(after.smallest > 0.08);
  CHECK(after.largest < 0.18);
}
