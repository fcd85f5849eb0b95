// What Jacobians say, against fields whose Jacobian is known, in f64.
#include <algorithm>
#include <cmath>
#include <functional>

#include "backends/cpu/cpu.h"
#include "engine/graph/ops.h"
#include "models/diagnostics/jacobian.h"
#include "models/exact/gaussian_mixture.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

namespace {

struct JacobianCase {
  Device device = cpu({.threads = 2});
  // A map of R^6 with the same Jacobian everywhere.
  Tensor matrix = normal(random_key(1, device), {6, 6}, DType::f64);
  Tensor x = normal(random_key(2, device), {5, 6}, DType::f64);
  JacobianCase() { eval(matrix), eval(x); }
  Field times(const Tensor& a) const {
    return [a](const Tensor& at) { return matmul(at, swap_axes(a, 0, 1)); };
  }
};

// I - 2 v v' / |v|^2 of a random v.
Tensor reflection(std::uint32_t number, const Device& device) {
  const Tensor v = normal(random_key(number, device), {6, 1}, DType::f64);
  const Tensor unit = eq(iota({6, 6}, 0, DType::i32, device), iota({6, 6}, 1, DType::i32, device));
  return unit.to(DType::f64) - 2.0 * matmul(v, swap_axes(v, 0, 1)) / sum(square(v));
}

double total_of(const Tensor& x) { return sum(x).item<double>(); }

}  // namespace

TEST_CASE("asymmetry is 0 of gradients, 2 of rotations, and its formula of any matrix",
          "[diagnostics]") {
  const JacobianCase c;
  const Tensor probes = rademacher_probes(random_key(3, c.device), c.x, 4);
  const auto ratio = [&](const Field& f, const Tensor& x, const Tensor& q) {
    const Asymmetry found = asymmetry(f, x, q);
    CHECK(found.size.shape() == Shape{x.size(0)});
    return total_of(found.difference) / total_of(found.size);
  };
  CHECK(ratio(c.times(c.matrix + swap_axes(c.matrix, 0, 1)), c.x, probes) < 1e-28);
  CHECK(ratio(c.times(c.matrix - swap_axes(c.matrix, 0, 1)), c.x, probes) == Approx(2));
  // The expectation over probes is |A - A'|^2 / (2 |A|^2), for Gaussian probes as for others.
  const double want =
      total_of(square(c.matrix - swap_axes(c.matrix, 0, 1))) / (2 * total_of(square(c.matrix)));
  CHECK(ratio(c.times(c.matrix), c.x, gaussian_probes(random_key(4, c.device), c.x, 4000)) ==
        Approx(want).epsilon(0.03));
  // The score of a mixture is a gradient wherever one looks.
  const GaussianMixture mixture({isotropic(1, {1, -1}, 0.3), isotropic(2, {-1, 0.5}, 0.1)},
                                c.device);
  const Tensor z = normal(random_key(5, c.device), {7, 2}, DType::f64);
  const Predictor exact = mixture.predictor(Prediction::velocity, Path::linear());
  for (const double t : {0.1, 0.5, 0.9}) {
    const Field noise = [&](const Tensor& at) {
      return exact(Prediction::noise, at, full({7}, t, DType::f64, c.device));
    };
    CHECK(ratio(noise, z, rademacher_probes(random_key(6, c.device), z, 2)) < 1e-24);
  }
  CHECK_THROWS_AS(asymmetry(c.times(c.matrix), c.x, c.x), ShapeError);
  CHECK_THROWS_AS(asymmetry(c.times(c.matrix), c.x, zeros({0, 5, 6}, DType::f64, c.device)),
                  ShapeError);
}

TEST_CASE("block power iteration finds the largest singular values of every sample",
          "[diagnostics]") {
  const JacobianCase c;
  const std::vector<double> want{3, 2.2, 1.5, 1, 0.4, 0.1};
  const Tensor matrix = matmul(reflection(11, c.device) * Tensor::from(want, {1, 6}, c.device),
                               reflection(12, c.device));
  eval(matrix);
  for (const std::int64_t count : {1, 3, 6}) {
    INFO(count);
    const auto found = singular_values(c.times(matrix), c.x, {.count = count, .iterations = 60});
    REQUIRE(found.size() == 5);
    for (const std::vector<double>& sample : found) {
      REQUIRE(std::ssize(sample) == count);
      for (std::int64_t k = 0; k < count; ++k)
        CHECK(sample[static_cast<std::size_t>(k)] ==
              Approx(want[static_cast<std::size_t>(k)]).epsilon(1e-9));
    }
  }
  // Of a field that bends: diag(2 x) of x^2, another for each sample and of any shape.
  const Tensor x = reshape(slice_axis(c.x, 0, 0, 2), {2, 3, 2});
  const auto found = singular_values([](const Tensor& at) { return square(at); }, x, {.count = 6});
  const std::vector<double> at = x.to_host<double>();
  for (std::size_t i = 0; i < 2; ++i) {
    std::vector<double> slopes;
    for (std::size_t k = 0; k < 6; ++k) slopes.push_back(2 * std::abs(at[6 * i + k]));
    std::ranges::sort(slopes, std::greater());
    for (std::size_t k = 0; k < 6; ++k) CHECK(found[i][k] == Approx(slopes[k]).epsilon(1e-12));
  }
  CHECK_THAT(message_of([&] { singular_values(c.times(c.matrix), c.x, {.count = 7}); }),
             has_text("1 to 6"));
  CHECK_THROWS_AS(singular_values(c.times(c.matrix), Tensor(), {}), ShapeError);
}

TEST_CASE("Gaussian data on a plane have its dimension, by the denoiser and by FLIPD",
          "[diagnostics]") {
  const Device device = cpu({.threads = 2});
  // Variances along the axes of R^5: three directions that are wide, one of 0.01, one of none.
  const std::vector<double> variances{2, 1, 0.5, 0.01, 0};
  std::vector<double> covariance(25, 0.0);
  for (std::size_t i = 0; i < 5; ++i) covariance[6 * i] = variances[i];
  const GaussianMixture data({{.weight = 1, .mean = {0, 1, 0, 0, 2}, .covariance = covariance}},
                             device);
  const Tensor x = data.samples(random_key(1, device), 400);
  for (const Path& path : {Path::linear(), Path::vp(), Path::edm()})
    for (const Prediction prediction : {Prediction::velocity, Prediction::data}) {
      INFO(to_string(path.kind));
      const Predictor exact = data.predictor(prediction, path);
      // Noise of deviation 0.3 hides the fourth direction, noise of 0.02 does not.
      const std::vector<std::pair<double, double>> levels{{0.3, 3}, {0.02, 4}};
      for (const auto& [level, dimensions] : levels) {
        const double t = path.time_of(PathNumbers{1, level, 0, 0});
        for (const double count :
             wide_directions(exact, path.at(t).alpha * slice_axis(x, 0, 0, 3), t, {.count = 5}))
          CHECK(count == dimensions);
        // E over x of d - sum s^2 / (l + s^2) + sum s^2 l / (l + s^2)^2.
        double want = 0;
        for (const double l : variances) {
          const double share = level * level / (l + level * level);
          want += 1 - share + share * l / (l + level * level);
        }
        const Tensor found = flipd(exact, x, t);
        const double deviation = std::sqrt(mean(square(found - mean(found))).item<double>() / 400);
        CHECK(mean(found).item<double>() == Approx(want).margin(5 * deviation + 1e-9));
        // Hutchinson's trace of a diagonal matrix is exact.
        const Tensor probed = flipd(exact, x, t, rademacher_probes(random_key(2, device), x, 1));
        CHECK(max(abs(probed - found)).item<double>() < 1e-8);
      }
    }
  // Fewer directions than there are can be looked at.
  const Predictor exact = data.predictor(Prediction::velocity, Path::linear());
  CHECK(wide_directions(exact, slice_axis(x, 0, 0, 1), 0.05, {.count = 2}).front() == 2);
}
