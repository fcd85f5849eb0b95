#include "models/evaluation/two_sample.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "engine/error.h"
#include "engine/number_text.h"
#include "models/data/random.h"
#include "models/evaluation/blocks.h"
#include "models/evaluation/distances.h"
#include "models/evaluation/transport.h"

namespace fluxion {

namespace {

using ArrayView = Eigen::Map<const Eigen::ArrayXd>;

ArrayView as_array(std::span<const double> values) {
  return {values.data(), static_cast<Eigen::Index>(values.size())};
}

// Sums of f(squared distance) over x by y and over the pairs i < j of each.
struct PairSums {
  double across = 0, within_x = 0, within_y = 0;
};
template <class RowSum>
PairSums pair_sums(const SampleView& x, const SampleView& y, int threads, const RowSum& row_sum) {
  std::vector<double> of_row(static_cast<std::size_t>(std::max(x.count, y.count)));
  const DistanceRow add = [&](std::int64_t row, std::int64_t, std::span<const double> squared) {
    of_row[static_cast<std::size_t>(row)] = squared.empty() ? 0 : row_sum(as_array(squared));
  };
  const auto total = [&](std::int64_t rows) {
    return std::accumulate(of_row.begin(), of_row.begin() + rows, 0.0);
  };
  PairSums sums;
  for_distances(x, y, threads, add);
  sums.across = total(x.count);
  for_pair_distances(x, threads, add);
  sums.within_x = total(x.count);
  for_pair_distances(y, threads, add);
  sums.within_y = total(y.count);
  return sums;
}

// W2^2 of two sorted lists: both quantile functions are steps, so the integral is a sum over the
// pieces between their jumps.
double squared_wasserstein(const std::vector<double>& a, const std::vector<double>& b) {
  const auto n = a.size(), m = b.size();
  double total = 0;
  std::size_t i = 0, j = 0, from = 0;  // positions in units of 1 / (n m)
  while (i < n && j < m) {
    const std::size_t end_a = (i + 1) * m, end_b = (j + 1) * n, to = std::min(end_a, end_b);
    const double difference = a[i] - b[j];
    total += difference * difference * static_cast<double>(to - from);
    from = to;
    if (to == end_a) ++i;
    if (to == end_b) ++j;
  }
  return total / (static_cast<double>(n) * static_cast<double>(m));
}

std::vector<double> sorted_projection(const SampleView& samples, std::span<const float> direction) {
  const Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>
      rows(samples.values.data(), samples.count, samples.dim);
  const Eigen::VectorXd along =
      Eigen::Map<const Eigen::VectorXf>(direction.data(), samples.dim).cast<double>();
  std::vector<double> result(static_cast<std::size_t>(samples.count));
  for (std::int64_t i = 0; i < samples.count; ++i)
    result[static_cast<std::size_t>(i)] = rows.row(i).cast<double>().dot(along);
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace

double energy_distance(const SampleView& x, const SampleView& y, bool unbiased, int threads) {
  check_samples(x, y, unbiased ? 2 : 1, "energy distance");
  const PairSums sums =
      pair_sums(x, y, threads, [](const ArrayView& squared) { return squared.sqrt().sum(); });
  const auto n = static_cast<double>(x.count), m = static_cast<double>(y.count);
  return 2 * sums.across / (n * m) - 2 * sums.within_x / (n * (unbiased ? n - 1 : n)) -
         2 * sums.within_y / (m * (unbiased ? m - 1 : m));
}

double mmd2_rbf(const SampleView& x, const SampleView& y, const RbfKernel& kernel, int threads) {
  check_samples(x, y, 2, "mmd");
  if (!(kernel.bandwidth > 0) || !std::isfinite(kernel.bandwidth))
    throw Error("mmd: the bandwidth must be above 0, got " + number_text(kernel.bandwidth));
  if (kernel.octaves < 0 || kernel.octaves > 10)
    throw Error("mmd: octaves must be 0 to 10, got " + std::to_string(kernel.octaves));
  // Halving the bandwidth raises the kernel to its fourth power: one exponential serves the whole
  // mixture.
  const double widest = kernel.bandwidth * std::exp2(kernel.octaves),
               scale = -0.5 / (widest * widest);
  const int kernels = 2 * kernel.octaves + 1;
  const PairSums sums = pair_sums(x, y, threads, [&](const ArrayView& squared) {
    Eigen::ArrayXd value = (squared * scale).exp();
    double total = value.sum();
    for (int k = 1; k < kernels; ++k) {
      value = value.square().square();
      total += value.sum();
    }
    return total / kernels;
  });
  const auto n = static_cast<double>(x.count), m = static_cast<double>(y.count);
  return 2 * sums.within_x / (n * (n - 1)) + 2 * sums.within_y / (m * (m - 1)) -
         2 * sums.across / (n * m);
}

double median_distance(const SampleView& x, int threads) {
  check_samples(x, 2, "median distance");
  const std::int64_t count = std::min(x.count, median_samples);
  const SampleView few{x.values.first(static_cast<std::size_t>(count * x.dim)), count, x.dim};
  std::vector<double> squared(static_cast<std::size_t>(count * (count - 1) / 2));
  for_pair_distances(
      few, threads, [&](std::int64_t row, std::int64_t, std::span<const double> values) {
        std::copy(values.begin(), values.end(),
                  squared.begin() + row * (2 * count - row - 1) /
                                        2);  // rows before this one hold count - 1, count - 2, ..
      });
  std::erase(squared, 0.0);
  if (squared.empty()) throw Error("median distance: the samples are all equal");
  const auto middle = squared.begin() + static_cast<std::ptrdiff_t>(squared.size() / 2);
  std::nth_element(squared.begin(), middle, squared.end());
  return std::sqrt(*middle);
}

double sliced_wasserstein2(const SampleView& x, const SampleView& y, const Slices& slices,
                           int threads) {
  if (slices.directions < 1)
    throw Error("sliced Wasserstein: needs at least 1 direction, got " +
                std::to_string(slices.directions));
  check_samples(x, y, 1, "sliced Wasserstein");
  const auto dim = static_cast<std::size_t>(x.dim);
  std::vector<float> directions(static_cast<std::size_t>(slices.directions) * dim);
  for (std::int64_t k = 0; k < slices.directions; ++k) {
    const std::span<float> direction =
        std::span(directions).subspan(static_cast<std::size_t>(k) * dim, dim);
    RandomSequence random(slices.seed, static_cast<std::uint64_t>(k));
    double length = 0;
    while (!(length > 0)) {
      for (float& component : direction) component = random.normal();
      length =
          std::sqrt(std::inner_product(direction.begin(), direction.end(), direction.begin(), 0.0));
    }
    for (float& component : direction) component = static_cast<float>(component / length);
  }
  return sliced_wasserstein2(x, y, SampleView{directions, slices.directions, x.dim}, threads);
}

double sliced_wasserstein2(const SampleView& x, const SampleView& y, const SampleView& directions,
                           int threads) {
  check_samples(x, y, 1, "sliced Wasserstein");
  check_samples(x, directions, 1, "sliced Wasserstein");
  std::vector<double> squared(static_cast<std::size_t>(directions.count));
  parallel_blocks(directions.count, threads, [&](std::int64_t k) {
    const std::span<const float> direction = directions.values.subspan(
        static_cast<std::size_t>(k * x.dim), static_cast<std::size_t>(x.dim));
    squared[static_cast<std::size_t>(k)] =
        squared_wasserstein(sorted_projection(x, direction), sorted_projection(y, direction));
  });
  return std::sqrt(std::accumulate(squared.begin(), squared.end(), 0.0) /
                   static_cast<double>(directions.count));
}

namespace {

// The least mean of cost(squared distance) over assignments of two sets of equal size.
template <class Cost>
double least_mean_cost(const SampleView& x, const SampleView& y, int threads, const Cost& of) {
  check_samples(x, y, 1, "Wasserstein");
  constexpr std::int64_t most = 4000;
  if (x.count != y.count || x.count > most)
    throw ShapeError("Wasserstein: wants two sets of one size up to " + std::to_string(most) +
                     ", got " + std::to_string(x.count) + " and " + std::to_string(y.count) +
                     " samples");
  const auto n = static_cast<std::size_t>(x.count);
  std::vector<double> cost(n * n);
  for_distances(x, y, threads,
                [&](std::int64_t row, std::int64_t, std::span<const double> squared) {
                  std::transform(squared.begin(), squared.end(), cost.begin() + row * x.count, of);
                });
  const std::vector<std::size_t> column_of = best_assignment(cost, n);
  double total = 0;
  for (std::size_t i = 0; i < n; ++i) total += cost[i * n + column_of[i]];
  return total / static_cast<double>(n);
}

}  // namespace

double wasserstein1(const SampleView& x, const SampleView& y, int threads) {
  return least_mean_cost(x, y, threads, [](double squared) { return std::sqrt(squared); });
}

double wasserstein2(const SampleView& x, const SampleView& y, int threads) {
  return std::sqrt(least_mean_cost(x, y, threads, [](double squared) { return squared; }));
}

}  // namespace fluxion
