#include "models/samplers/head_start.h"

#include <Eigen/Core>
#include <algorithm>
#include <string>

#include "engine/error.h"

namespace fluxion {

HeadStart fitted_head_start(const DataSet& data, std::int64_t count) {
  const std::int64_t d = data.sample_shape().elements();
  if (d > most_head_start_dimensions)
    throw Error("head start: wants samples of at most " +
                std::to_string(most_head_start_dimensions) + " numbers, " + data.name() + " has " +
                std::to_string(d));
  if (count < 2) throw Error("head start: wants two samples or more, got " + std::to_string(count));
  const std::int64_t used = data.size() ? std::min(*data.size(), count) : count;
  // Moments about the first sample: those about 0 would cancel where a coordinate varies little
  // beside its size.
  Eigen::RowVectorXd origin;
  Eigen::VectorXd mean = Eigen::VectorXd::Zero(d);
  Eigen::MatrixXd squares = Eigen::MatrixXd::Zero(d, d);
  constexpr std::int64_t at_once = 250;
  for (std::int64_t begin = 0; begin < used; begin += at_once) {
    // The last batch may be read in part.
    const HostBatch batch = data.batch(at_once, 0, static_cast<std::uint64_t>(begin / at_once));
    Eigen::MatrixXd rows =
        Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
            batch.x.data(), std::min(at_once, used - begin), d)
            .cast<double>();
    if (begin == 0) origin = rows.row(0);
    rows.rowwise() -= origin;
    mean += rows.colwise().sum().transpose();
    squares.selfadjointView<Eigen::Lower>().rankUpdate(rows.transpose());
  }
  mean /= static_cast<double>(used);
  Eigen::MatrixXd covariance = squares.selfadjointView<Eigen::Lower>();
  covariance = covariance / static_cast<double>(used) - mean * mean.transpose();
  if (!covariance.allFinite())
    throw Error("head start: " + data.name() + " holds numbers that are not finite");
  covariance = 0.5 * (covariance + covariance.transpose().eval());
  mean += origin.transpose();
  return {{mean.begin(), mean.end()}, {covariance.data(), covariance.data() + covariance.size()}};
}

}  // namespace fluxion
