// The closed form of the noisiest part of the way.
#include <cmath>

#include "backends/cpu/cpu.h"
#include "models/data/glyphs.h"
#include "models/data/points.h"
#include "models/exact/gaussian_mixture.h"
#include "models/samplers/head_start.h"
#include "models/samplers/sampler.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace fluxion;
using namespace fluxion::testing;

TEST_CASE("a Gaussian's whole way is its head start, on every path", "[samplers]") {
  const Device device = cpu({.threads = 1});
  const std::vector<double> mean{0.3, -0.7}, covariance{0.5, 0.2, 0.2, 0.3};
  const Gaussian data(mean, covariance, device);
  const Tensor noise = normal(random_key(1, device), {20, 2}, DType::f64);
  for (const Path& path : {Path::linear(), Path::trig(), Path::vp(), Path::edm()})
    for (const double share : {0.3, 0.9}) {
      INFO(to_string(path.kind) << ", " << share);
      SamplerOptions options{.kind = SamplerKind::ode_rk4, .steps = 200};
      options.grid = GridKind::uniform;
      if (path.kind == PathKind::edm)
        options.kind = SamplerKind::edm, options.grid = GridKind::karras;
      const auto drawn = [&](const SamplerOptions& how) {
        return Sampler(data.predictor(Prediction::velocity, path), {2}, 0, DType::f64, device,
                       how)(noise);
      };
      SamplerOptions ahead = options;
      ahead.begin = share;
      ahead.head_start = std::make_shared<const HeadStart>(HeadStart{mean, covariance});
      // Both end where the flow does, up to the steps of the network's part; on vp up to the last
      // one, too, which is to the data seen.
      CHECK(max(abs(drawn(ahead) - drawn(options))).item<double>() <
            (path.kind == PathKind::vp ? 5e-3 : 2e-3));
    }
}

TEST_CASE("what is of data under independent noise is refused for other flows", "[samplers]") {
  const auto some = std::make_shared<const HeadStart>(HeadStart{{0, 0}, {1, 0, 0, 1}});
  const SamplerOptions plain{.kind = SamplerKind::ode_heun, .steps = 4};
  SamplerOptions coupled = plain;
  coupled.independent_noise = false;
  CHECK_NOTHROW(check(coupled));
  coupled.begin = 0.5;
  CHECK_NOTHROW(check(coupled));
  coupled.head_start = some;
  CHECK_THROWS_AS(check(coupled), Error);

  SamplerOptions own = plain;
  own.independent_noise = own.on_path = false;
  own.prediction = Prediction::velocity;
  CHECK_NOTHROW(check(own));
  own.begin = 0.5;
  CHECK_THROWS_AS(check(own), Error);
  own.begin = 0;
  own.kind = SamplerKind::rectified;
  CHECK_THROWS_AS(check(own), Error);
  own.steps = 1;
  CHECK_NOTHROW(check(own));
}

TEST_CASE("a head start saves steps where data are many Gaussians", "[samplers]") {
  const Device device = cpu({.threads = 1});
  std::vector<GaussianComponent> components;
  const PlanarMixture known = planar_mixture("8gaussians");
  for (const auto& [x, y] : known.centres)
    components.push_back(isotropic(1, {x, y}, known.deviation * known.deviation));
  const GaussianMixture data(components, device);
  const auto fitted = std::make_shared<const HeadStart>(fitted_head_start(*eight_gaussians()));
  const Tensor noise = normal(random_key(1, device), {500, 2}, DType::f64);
  const auto drawn = [&](std::int64_t steps, double share) {
    SamplerOptions options{.kind = SamplerKind::ode_heun, .steps = steps};
    if (share > 0) options.begin = share, options.head_start = fitted;
    return Sampler(data.predictor(Prediction::velocity, Path::linear()), {2}, 0, DType::f64, device,
                   options)(noise);
  };
  const Tensor exact = drawn(400, 0);
  const auto off = [&](const Tensor& x) {
    return std::sqrt(mean(square(x - exact)).item<double>());
  };
  // With few steps, what the network is spared is worth more than the error of the closed form,
  // which grows with the share.
  const double plain = off(drawn(3, 0)), ahead = off(drawn(3, 0.2));
  INFO("3 steps: " << plain << ", after a head start " << ahead);
  CHECK(ahead < 0.75 * plain);
  const double fifth = off(drawn(400, 0.2)), most = off(drawn(400, 0.9));
  INFO("the closed form alone is off by " << fifth << " at 0.2, " << most << " at 0.9");
  CHECK(fifth < 0.03);
  CHECK(most > 5 * fifth);
}

TEST_CASE("means and covariances are those of the samples", "[samplers]") {
  const HeadStart moons_fit = fitted_head_start(*moons(), 333);
  const HostBatch first = moons()->batch(250, 0, 0), second = moons()->batch(250, 0, 1);
  std::vector<float> all = first.x;
  all.insert(all.end(), second.x.begin(), second.x.begin() + 2 * 83);
  double sums[2] = {0, 0}, products[3] = {0, 0, 0};
  for (std::size_t i = 0; i < all.size(); i += 2) {
    const double x = all[i], y = all[i + 1];
    sums[0] += x / 333, sums[1] += y / 333;
    products[0] += x * x / 333, products[1] += x * y / 333, products[2] += y * y / 333;
  }
  CHECK(moons_fit.mean[0] == Approx(sums[0]));
  CHECK(moons_fit.mean[1] == Approx(sums[1]));
  CHECK(moons_fit.covariance[0] == Approx(products[0] - sums[0] * sums[0]));
  CHECK(moons_fit.covariance[1] == Approx(products[1] - sums[0] * sums[1]));
  CHECK(moons_fit.covariance[2] == moons_fit.covariance[1]);
  CHECK(moons_fit.covariance[3] == Approx(products[2] - sums[1] * sums[1]));
  // Of images, which lie in fewer dimensions than they have pixels.
  const HeadStart digits = fitted_head_start(*glyphs(8), 40);
  CHECK(digits.mean.size() == 64);
  const Device device = cpu({.threads = 1});
  CHECK_NOTHROW(Gaussian(digits.mean, digits.covariance, device));

  const Predictor any = Gaussian({0, 0}, {1, 0, 0, 1}, device).predictor(Prediction::velocity, {});
  SamplerOptions options{.kind = SamplerKind::ode_heun, .steps = 3};
  options.head_start = std::make_shared<const HeadStart>(digits);
  CHECK_THAT(message_of([&] { check(options); }), has_text("above 0"));
  options.begin = 0.2;
  CHECK_THAT(message_of([&] { Sampler(any, {2}, 0, DType::f64, device, options); }),
             has_text("of 64 numbers"));
  options.source = "moons";
  CHECK_THAT(message_of([&] { check(options); }), has_text("begins in noise"));
  CHECK_THROWS_AS(fitted_head_start(*moons(), 1), Error);
  CHECK_THROWS_AS(fitted_head_start(*glyphs(80)), Error);
}

TEST_CASE("a coordinate that does not vary has no variance in a head start", "[samplers]") {
  // (N(0, 1), c)
  class Line : public DataSet {
   public:
    explicit Line(float c) : DataSet("line", {2}, 0, std::nullopt), c_(c) {}

   protected:
    std::int32_t sample(std::uint64_t seed, std::uint64_t position,
                        std::span<float> x) const override {
      x[0] = RandomSequence(seed, position).normal(), x[1] = c_;
      return 0;
    }

   private:
    float c_;
  };
  const Device device = cpu({.threads = 1});
  for (const float c : {0.0f, 31.7f, 127.5f, 1000.1f, -3e7f}) {
    INFO(c);
    const HeadStart fit = fitted_head_start(Line(c), 4000);
    CHECK(fit.covariance[0] == Approx(1).epsilon(0.1));
    CHECK(fit.covariance[1] == 0);
    CHECK(fit.covariance[3] == 0);
    CHECK(fit.mean[0] == Approx(0).margin(0.1));
    CHECK(fit.mean[1] == c);
    CHECK_NOTHROW(Gaussian(fit.mean, fit.covariance, device));
  }
}
