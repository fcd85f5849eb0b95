#include "models/evaluation/classifier_test.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/number_text.h"
#include "models/data/random.h"
#include "models/evaluation/blocks.h"

namespace fluxion {
namespace {

using FeatureRows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr std::int64_t most_coordinates = 64;
constexpr int lengths = 4;  // of the cosines: 1/4, 1/2, 1 and 2 median distances

Eigen::MatrixXd random_normals(std::int64_t rows, std::int64_t columns, std::uint64_t seed,
                               std::uint64_t position) {
  RandomSequence random(seed, position);
  Eigen::MatrixXd result(rows, columns);
  for (Eigen::Index j = 0; j < columns; ++j)
    for (Eigen::Index i = 0; i < rows; ++i) result(i, j) = random.normal();
  return result;
}

// Both sets, x first, each column with mean 0 and mean square 1.
FeatureRows standardised(const SampleView& x, const SampleView& y, std::int64_t count) {
  FeatureRows all(2 * count, x.dim);
  for (const auto& [set, first] : {std::pair(&x, std::int64_t{0}), std::pair(&y, count)})
    all.middleRows(first, count) =
        Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
            set->values.data(), count, x.dim)
            .cast<double>();
  all.rowwise() -= all.colwise().mean();
  for (Eigen::Index j = 0; j < all.cols(); ++j) {
    const double scale = std::sqrt(all.col(j).squaredNorm() / static_cast<double>(all.rows()));
    if (scale > 0) all.col(j) /= scale;
  }
  return all;
}

// What the regression sees of each sample; the first column is 1.
FeatureRows seen_features(const FeatureRows& points, const ClassifierTest& options) {
  const Eigen::Index rows = points.rows(), dim = points.cols();
  const FeatureRows coordinates =
      dim <= most_coordinates
          ? points
          : FeatureRows(points * random_normals(dim, most_coordinates, options.seed, 0) /
                        std::sqrt(static_cast<double>(dim)));
  // The median distance of standardised samples, about.
  std::vector<double> squares;
  for (Eigen::Index i = 0; i + 1 < std::min<Eigen::Index>(rows, 1000); ++i)
    squares.push_back((points.row(i) - points.row(rows - 1 - i)).squaredNorm());
  std::nth_element(squares.begin(), squares.begin() + std::ssize(squares) / 2, squares.end());
  const double median =
      std::max(std::sqrt(squares[squares.size() / 2]), 1e-6 * std::sqrt(static_cast<double>(dim)));

  FeatureRows result(rows, 1 + coordinates.cols() + options.features);
  result.col(0).setOnes();
  result.middleCols(1, coordinates.cols()) = coordinates;
  RandomSequence phases(options.seed, 2);
  const Eigen::MatrixXd frequencies = random_normals(dim, options.features, options.seed, 1);
  for (Eigen::Index k = 0; k < options.features; ++k) {
    const double length = median * std::exp2(static_cast<int>(k % lengths) - 2);
    const double phase = 2 * std::numbers::pi * phases.uniform();
    const Eigen::ArrayXd angle = (points * frequencies.col(k)).array() / length + phase;
    result.col(1 + coordinates.cols() + k) = std::numbers::sqrt2 * angle.cos().matrix();
  }
  return result;
}

// Weights of least sum of log(1 + exp(-s w.f)) + ridge |w|^2 / 2, s the sign of a row, without a
// penalty of the first weight: Newton's steps, each halved until the sum falls.
Eigen::VectorXd regression(const FeatureRows& features, const Eigen::VectorXd& signs,
                           double ridge) {
  const Eigen::Index size = features.cols();
  Eigen::VectorXd penalty = Eigen::VectorXd::Constant(size, ridge);
  penalty[0] = 1e-9;
  const auto objective = [&](const Eigen::VectorXd& w) {
    const Eigen::ArrayXd margin = (features * w).array() * signs.array();
    // log(1 + exp(-m)) without overflow.
    const Eigen::ArrayXd losses = (-margin).max(0) + (1 + (-margin.abs()).exp()).log();
    return losses.sum() + 0.5 * (penalty.array() * w.array().square()).sum();
  };
  Eigen::VectorXd w = Eigen::VectorXd::Zero(size);
  double now = objective(w);
  constexpr int most_steps = 20, most_halvings = 20;
  for (int step = 0; step < most_steps; ++step) {
    const Eigen::ArrayXd margin = (features * w).array() * signs.array();
    const Eigen::ArrayXd wrong = 1 / (1 + margin.exp());
    const Eigen::VectorXd gradient =
        penalty.cwiseProduct(w) - features.transpose() * (wrong * signs.array()).matrix();
    const FeatureRows weighted = (wrong * (1 - wrong)).sqrt().matrix().asDiagonal() * features;
    Eigen::MatrixXd hessian = Eigen::MatrixXd(penalty.asDiagonal());
    hessian.selfadjointView<Eigen::Lower>().rankUpdate(weighted.transpose());
    const Eigen::VectorXd direction =
        hessian.selfadjointView<Eigen::Lower>().ldlt().solve(gradient);
    double share = 1;
    double next = objective(w - direction);
    for (int k = 0; !(next <= now) && k < most_halvings; ++k)
      next = objective(w - (share /= 2) * direction);
    if (!(next < now)) break;
    w -= share * direction;
    const bool there = now - next < 1e-6 * (1 + now);
    now = next;
    if (there) break;
  }
  return w;
}

}  // namespace

double classifier_test(const SampleView& x, const SampleView& y, const ClassifierTest& options,
                       int threads) {
  if (options.folds < 2 || options.features < 0 || options.most_samples < 1 ||
      !(options.ridge > 0) || !std::isfinite(options.ridge))
    throw Error("c2st: wants 2 folds or more, 0 features or more and a ridge above 0, got " +
                std::to_string(options.folds) + ", " + std::to_string(options.features) + " and " +
                number_text(options.ridge));
  check_samples(x, y, 2 * options.folds, "c2st");
  const std::int64_t count = std::min({x.count, y.count, options.most_samples});
  const SomeSamples some(x, count), others(y, count);
  const FeatureRows features =
      seen_features(standardised(some.view(), others.view(), count), options);
  std::vector<double> right(static_cast<std::size_t>(options.folds));
  parallel_blocks(options.folds, threads, [&](std::int64_t fold) {
    std::vector<Eigen::Index> learned, judged;
    for (std::int64_t i = 0; i < 2 * count; ++i)
      (i % count % options.folds == fold ? judged : learned).push_back(i);
    const auto sign = [&](Eigen::Index row) { return row < count ? 1.0 : -1.0; };
    Eigen::VectorXd signs(std::ssize(learned));
    for (Eigen::Index i = 0; i < signs.size(); ++i)
      signs[i] = sign(learned[static_cast<std::size_t>(i)]);
    FeatureRows known(signs.size(), features.cols());
    for (Eigen::Index i = 0; i < signs.size(); ++i)
      known.row(i) = features.row(learned[static_cast<std::size_t>(i)]);
    const Eigen::VectorXd w = regression(known, signs, options.ridge);
    double hits = 0;
    for (const Eigen::Index row : judged) {
      const double margin = sign(row) * features.row(row).dot(w);
      hits += margin > 0 ? 1 : margin == 0 ? 0.5 : 0;
    }
    right[static_cast<std::size_t>(fold)] = hits;
  });
  return std::accumulate(right.begin(), right.end(), 0.0) / static_cast<double>(2 * count);
}

}  // namespace fluxion
