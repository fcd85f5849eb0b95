#include "models/evaluation/frechet.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <string>

#include "engine/error.h"

namespace fluxion {

namespace {

Eigen::MatrixXd covariance_of(const Moments& moments) {
  const auto dim = static_cast<Eigen::Index>(moments.mean.size());
  if (dim < 1 || moments.covariance.size() != moments.mean.size() * moments.mean.size())
    throw ShapeError("Frechet distance: a mean of " + std::to_string(dim) +
                     " numbers does not go with a covariance of " +
                     std::to_string(moments.covariance.size()));
  const Eigen::MatrixXd given =
      Eigen::Map<const Eigen::MatrixXd>(moments.covariance.data(), dim, dim);
  if (!given.allFinite())
    throw Error("Frechet distance: the covariance holds a number that is not finite");
  return (given + given.transpose()) / 2;
}

}  // namespace

Moments moments(const SampleView& samples) {
  check_samples(samples, 2, "moments");
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Rows rows =
      Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
          samples.values.data(), samples.count, samples.dim)
          .cast<double>();
  const Eigen::RowVectorXd mean = rows.colwise().mean();
  rows.rowwise() -= mean;
  const Eigen::MatrixXd covariance =
      rows.transpose() * rows / static_cast<double>(samples.count - 1);
  return {{mean.begin(), mean.end()}, {covariance.data(), covariance.data() + covariance.size()}};
}

double frechet_distance(const Moments& a, const Moments& b) {
  if (a.mean.size() != b.mean.size())
    throw ShapeError("Frechet distance: dimensions " + std::to_string(a.mean.size()) + " and " +
                     std::to_string(b.mean.size()) + " differ");
  const Eigen::MatrixXd c1 = covariance_of(a), c2 = covariance_of(b);
  // Only symmetric matrices are decomposed, so that no eigenvalue turns complex where a covariance
  // is singular.
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> first(c1);
  const Eigen::MatrixXd root = first.eigenvectors() *
                               first.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal() *
                               first.eigenvectors().transpose();
  const Eigen::MatrixXd product = root * c2 * root;
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> middle((product + product.transpose()) / 2,
                                                              Eigen::EigenvaluesOnly);
  double squared =
      c1.trace() + c2.trace() - 2 * middle.eigenvalues().cwiseMax(0.0).cwiseSqrt().sum();
  for (std::size_t i = 0; i < a.mean.size(); ++i)
    squared += (a.mean[i] - b.mean[i]) * (a.mean[i] - b.mean[i]);
  return std::max(squared, 0.0);
}

}  // namespace fluxion
