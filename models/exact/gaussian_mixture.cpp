#include "models/exact/gaussian_mixture.h"

#include <Eigen/Eigenvalues>
#include <cmath>
#include <numbers>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "models/layers/host_numbers.h"

namespace fluxion {
namespace {

// Numbers of a path point, [] or [batch], over [k, batch, d].
Tensor over_components(const Tensor& values) {
  return values.rank() == 0 ? values : reshape(values, {1, values.size(0), 1});
}
// The same over [batch, d] and, for a number of each component, over [batch, k].
Tensor over_vectors(const Tensor& values) {
  return values.rank() == 0 ? values : expand_dims(values, 1);
}

void check_component(const GaussianComponent& component, std::size_t dimensions) {
  if (component.mean.size() != dimensions || dimensions == 0 ||
      component.covariance.size() != dimensions * dimensions)
    throw ShapeError("Gaussian: a mean of " + std::to_string(component.mean.size()) +
                     " numbers and a covariance of " + std::to_string(component.covariance.size()) +
                     " do not fit dimension " + std::to_string(dimensions));
  if (!(component.weight > 0) || !std::isfinite(component.weight))
    throw Error("Gaussian: a weight must be above 0, got " + number_text(component.weight));
}

void check_vectors(const Tensor& z, std::int64_t dimensions, const char* what) {
  if (z.rank() != 2 || z.size(1) != dimensions)
    throw ShapeError(std::string(what) + ": wants vectors [batch, " + std::to_string(dimensions) +
                     "], got " + to_string(z.type()));
}

Tensor combined(const Combination& of, const Tensor& x, const Tensor& e) {
  return over_vectors(of.a) * x + over_vectors(of.b) * e;
}

}  // namespace

GaussianComponent isotropic(double weight, std::vector<double> mean, double variance) {
  const std::size_t d = mean.size();
  std::vector<double> covariance(d * d, 0);
  for (std::size_t i = 0; i < d; ++i) covariance[i * d + i] = variance;
  return {weight, std::move(mean), std::move(covariance)};
}

GaussianMixture::GaussianMixture(const std::vector<GaussianComponent>& components,
                                 const Device& device, DType dtype) {
  if (components.empty()) throw ShapeError("Gaussian mixture: has no component");
  const std::size_t d = components.front().mean.size();
  double total = 0;
  for (const GaussianComponent& each : components) {
    check_component(each, d);
    total += each.weight;
  }
  std::vector<double> shares, means, axes, variances;
  for (const GaussianComponent& each : components) {
    using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const auto size = static_cast<Eigen::Index>(d);
    const Matrix covariance = Eigen::Map<const Matrix>(each.covariance.data(), size, size);
    const double scale = covariance.cwiseAbs().maxCoeff();
    if (!covariance.allFinite() ||
        (covariance - covariance.transpose()).cwiseAbs().maxCoeff() > 1e-12 * scale)
      throw Error("Gaussian: the covariance is not a symmetric matrix of finite numbers");
    const Eigen::SelfAdjointEigenSolver<Matrix> solver(covariance);
    // No eigenvalue is above d times the largest number.
    if (solver.eigenvalues().minCoeff() < -1e-12 * static_cast<double>(d) * scale)
      throw Error("Gaussian: the covariance has the negative eigenvalue " +
                  number_text(solver.eigenvalues().minCoeff()));
    shares.push_back(std::log(each.weight / total));
    means.insert(means.end(), each.mean.begin(), each.mean.end());
    for (Eigen::Index i = 0; i < size; ++i)
      for (Eigen::Index j = 0; j < size; ++j) axes.push_back(solver.eigenvectors()(i, j));
    for (Eigen::Index i = 0; i < size; ++i)
      variances.push_back(std::max(0.0, solver.eigenvalues()(i)));
  }
  const auto k = static_cast<std::int64_t>(components.size()), n = static_cast<std::int64_t>(d);
  log_shares_ = tensor_of(shares, {k}, dtype, device);
  means_ = tensor_of(means, {k, n}, dtype, device);
  axes_ = tensor_of(axes, {k, n, n}, dtype, device);
  variances_ = tensor_of(variances, {k, n}, dtype, device);
}

GaussianMixture::Responses GaussianMixture::responses(const Tensor& z, const PathPoint& at) const {
  check_vectors(z, dimensions(), "Gaussian mixture");
  const Tensor alpha = over_components(at.alpha), sigma = over_components(at.sigma);
  const Tensor e = expand_dims(z, 0) - alpha * expand_dims(means_, 1);  // [k, batch, d]
  const Tensor along = matmul(e, axes_);                                // U' e
  const Tensor c = square(alpha) * expand_dims(variances_, 1) + square(sigma);
  const Tensor logs = -0.5 * sum(square(along) / c + log(c), {2}) -
                      0.5 * static_cast<double>(dimensions()) * std::log(2 * std::numbers::pi);
  return {swap_axes(logs, 0, 1) + log_shares_, along / c};
}

Tensor GaussianMixture::log_density(const Tensor& z, const PathPoint& at) const {
  return logsumexp(responses(z, at).log_weights, {1});
}

Tensor GaussianMixture::log_density(const Tensor& x) const {
  const Tensor one = full({}, 1, x.dtype(), x.device());
  return log_density(x,
                     {.alpha = one, .sigma = zeros_like(one), .alpha_rate = {}, .sigma_rate = {}});
}

GaussianMixture::Means GaussianMixture::means(const Tensor& z, const PathPoint& at) const {
  const Responses found = responses(z, at);
  const Tensor shares = expand_dims(swap_axes(softmax(found.log_weights), 0, 1), 2);
  const Tensor back = swap_axes(axes_, 1, 2);
  const Tensor x =
      expand_dims(means_, 1) +
      over_components(at.alpha) * matmul(expand_dims(variances_, 1) * found.whitened, back);
  const Tensor e = over_components(at.sigma) * matmul(found.whitened, back);
  return {sum(shares * x, {0}), sum(shares * e, {0})};
}

Velocity GaussianMixture::network(Prediction prediction, const Path& path) const {
  if (prediction == Prediction::end_point)
    throw Error("Gaussian mixture: where trajectories end is not known in closed form");
  return [self = *this, prediction, path](const Tensor& z, const Times& times, const Tensor&) {
    const Means means = self.means(z, path.at(times.t));
    return combined(combination(prediction, path, times.t), means.x, means.e);
  };
}

Tensor GaussianMixture::samples(const Tensor& key, std::int64_t count) const {
  const std::vector<Tensor> keys = split_key(key, 2);
  const DType dtype = means_.dtype();
  const Tensor below = cumsum(exp(log_shares_), 0);
  const Tensor u = expand_dims(uniform(keys[0], {count}, dtype), 1);
  // Rounding may leave the last sum below 1; take() holds indices inside.
  const Tensor chosen = sum(ge(u, expand_dims(below, 0)).to(DType::i32), {1});
  const Tensor n = normal(keys[1], {count, dimensions()}, dtype);
  const Tensor scaled_noise = expand_dims(sqrt(take(variances_, chosen, 0)) * n, 2);
  return take(means_, chosen, 0) +
         reshape(matmul(take(axes_, chosen, 0), scaled_noise), {count, dimensions()});
}

Gaussian::Gaussian(std::vector<double> mean, std::vector<double> covariance, const Device& device,
                   DType dtype)
    : mixture_({{.weight = 1, .mean = std::move(mean), .covariance = std::move(covariance)}},
               device, dtype) {}

Tensor Gaussian::flow_map(const Path& path, const Tensor& z, const Tensor& t,
                          const Tensor& r) const {
  const std::int64_t d = mixture_.dimensions();
  check_vectors(z, d, "Gaussian");
  const PathPoint from = path.at(t), to = path.at(r);
  const Tensor axes = reshape(mixture_.axes_, {d, d});
  const auto variance = [&](const PathPoint& at) {
    return square(over_vectors(at.alpha)) * mixture_.variances_ + square(over_vectors(at.sigma));
  };
  const Tensor e = z - over_vectors(from.alpha) * mixture_.means_;
  const Tensor stretched = sqrt(variance(to) / variance(from)) * matmul(e, axes);
  return over_vectors(to.alpha) * mixture_.means_ + matmul(stretched, swap_axes(axes, 0, 1));
}

Velocity Gaussian::network(Prediction prediction, const Path& path) const {
  if (prediction == Prediction::end_point)
    return [self = *this, path](const Tensor& z, const Times& times, const Tensor&) {
      return self.flow_map(path, z, times.t, full_like(times.t, path.clean_time()));
    };
  if (prediction == Prediction::average_velocity)
    return [self = *this, path](const Tensor& z, const Times& times, const Tensor&) {
      const Tensor same = eq(times.t, times.r);
      const Tensor span = where(same, 1.0, times.t - times.r);
      const Tensor mean = (z - self.flow_map(path, z, times.t, times.r)) / over_vectors(span);
      const Tensor now = self.mixture_.network(Prediction::velocity, path)(z, times, {});
      return where(over_vectors(same), now, mean);
    };
  return mixture_.network(prediction, path);
}

EmpiricalData::EmpiricalData(Tensor points) : points_(std::move(points)) {
  if (!points_ || points_.rank() != 2 || points_.size(0) < 1)
    throw ShapeError("empirical data: wants points [n, d]" +
                     (points_ ? ", got " + to_string(points_.type()) : std::string()));
}

Tensor EmpiricalData::denoised(const Tensor& z, const PathPoint& at) const {
  check_vectors(z, points_.size(1), "empirical data");
  const Tensor offsets =
      expand_dims(z, 1) - reshape(at.alpha, {at.alpha.elements(), 1, 1}) * expand_dims(points_, 0);
  const Tensor squares = sum(square(offsets), {2});  // [batch, n]
  return matmul(softmax(-0.5 * squares / square(over_vectors(at.sigma))), points_);
}

Velocity EmpiricalData::network(Prediction prediction, const Path& path) const {
  if (prediction == Prediction::end_point)
    throw Error("empirical data: where trajectories end is not known in closed form");
  return [self = *this, prediction, path](const Tensor& z, const Times& times, const Tensor&) {
    const PathPoint at = path.at(times.t);
    const Tensor x = self.denoised(z, at);
    const Tensor e = (z - over_vectors(at.alpha) * x) / over_vectors(at.sigma);
    return combined(combination(prediction, path, times.t), x, e);
  };
}

}  // namespace fluxion
