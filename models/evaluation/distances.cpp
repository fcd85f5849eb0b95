#include "models/evaluation/distances.h"

#include <Eigen/Core>
#include <algorithm>

#include "models/evaluation/blocks.h"

namespace fluxion {

namespace {

using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr std::int64_t block_rows =
    32;  // of distances held at a time by a thread: 2.5 MB against 10,000 samples
constexpr std::int64_t direct_dimensions =
    8;  // few enough for differences to be cheaper than a product
// A share of |x|^2 + |y|^2: where less is left of it after 2 x.y, too many digits cancelled, and
// all of them where x = y.
constexpr double cancelled = 1e-4;

Rows to_rows(const SampleView& samples) {
  return Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
             samples.values.data(), samples.count, samples.dim)
      .cast<double>();
}

void walk(const SampleView& x_view, const SampleView& y_view, bool pairs, int threads,
          const DistanceRow& body) {
  Rows x = to_rows(x_view), y = pairs ? x : to_rows(y_view);
  if (x.rows() == 0 || y.rows() == 0) return;
  const bool direct = x.cols() <= direct_dimensions;
  Eigen::MatrixXd columns;  // y by dimension, for the direct way
  Eigen::VectorXd x_norms, y_norms;
  if (direct) {
    columns = y;
  } else {
    const Eigen::RowVectorXd centre = y.colwise().mean();
    x.rowwise() -= centre;
    y.rowwise() -= centre;
    x_norms = x.rowwise().squaredNorm();
    y_norms = y.rowwise().squaredNorm();
  }
  parallel_blocks((x.rows() + block_rows - 1) / block_rows, threads, [&](std::int64_t block) {
    const std::int64_t begin = block * block_rows,
                       rows = std::min<std::int64_t>(block_rows, x.rows() - begin);
    const std::int64_t first = pairs ? begin : 0,
                       count = y.rows() - first;  // pairs need no column before the block
    Rows squared(rows, count);
    if (direct) {
      for (std::int64_t i = 0; i < rows; ++i) {
        auto row = squared.row(i).array();
        row = (columns.col(0).segment(first, count).array() - x(begin + i, 0)).square().transpose();
        for (std::int64_t k = 1; k < x.cols(); ++k)
          row +=
              (columns.col(k).segment(first, count).array() - x(begin + i, k)).square().transpose();
      }
    } else {
      squared.noalias() = x.middleRows(begin, rows) * y.middleRows(first, count).transpose();
      squared *= -2;
      squared.colwise() += x_norms.segment(begin, rows);
      squared.rowwise() += y_norms.segment(first, count).transpose();
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < count; ++j)
          if (!(squared(i, j) > cancelled * (x_norms(begin + i) + y_norms(first + j))))
            squared(i, j) = (x.row(begin + i) - y.row(first + j)).squaredNorm();
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t skipped = pairs ? i + 1 : 0;
      body(begin + i, first + skipped,
           std::span<const double>(squared.data() + i * count + skipped,
                                   static_cast<std::size_t>(count - skipped)));
    }
  });
}

}  // namespace

void for_distances(const SampleView& x, const SampleView& y, int threads, const DistanceRow& body) {
  check_samples(x, y, 0, "distances");
  walk(x, y, false, threads, body);
}

void for_pair_distances(const SampleView& x, int threads, const DistanceRow& body) {
  check_samples(x, 0, "distances");
  walk(x, x, true, threads, body);
}

double distance_bytes(std::int64_t x, std::int64_t y, std::int64_t dim) {
  const double rows = static_cast<double>(x) + static_cast<double>(y),
               by_column = dim <= direct_dimensions ? static_cast<double>(y) : 0;
  return (rows + by_column) * static_cast<double>(dim) * sizeof(double);
}

}  // namespace fluxion
