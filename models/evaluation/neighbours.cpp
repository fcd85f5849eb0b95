#include "models/evaluation/neighbours.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "engine/error.h"
#include "models/evaluation/distances.h"

namespace fluxion {

namespace {

// The k smallest of a row's squared distances, leaving out position `skipped` (-1: none), in increasing order.
struct Smallest {
  std::vector<double> squared;
  std::vector<std::int64_t> index;
};
Smallest smallest(std::span<const double> squared, std::int64_t k, std::int64_t skipped) {
  Smallest result;
  const auto wanted = static_cast<std::size_t>(k);
  for (std::size_t j = 0; j < squared.size(); ++j) {
    if (result.squared.size() == wanted && !(squared[j] < result.squared.back())) continue;
    if (static_cast<std::int64_t>(j) == skipped) continue;
    const auto place = std::upper_bound(result.squared.begin(), result.squared.end(), squared[j]) - result.squared.begin();
    result.squared.insert(result.squared.begin() + place, squared[j]);
    result.index.insert(result.index.begin() + place, static_cast<std::int64_t>(j));
    if (result.squared.size() > wanted) result.squared.pop_back(), result.index.pop_back();
  }
  return result;
}

// Squared distance of each sample to its k-th nearest in the same set.
std::vector<double> squared_radii(const SampleView& x, std::int64_t k, int threads) {
  std::vector<double> result(static_cast<std::size_t>(x.count));
  for_distances(x, x, threads, [&](std::int64_t row, std::int64_t, std::span<const double> squared) {
    result[static_cast<std::size_t>(row)] = smallest(squared, k, row).squared.back();
  });
  return result;
}

}  // namespace

Neighbours nearest(const SampleView& x, const SampleView& base, std::int64_t k, int threads) {
  check_samples(x, base, 1, "nearest neighbours");
  if (k < 1 || k > base.count)
    throw ShapeError("nearest neighbours: asked for " + std::to_string(k) + " of " + std::to_string(base.count) + " samples");
  Neighbours result{k, std::vector<std::int64_t>(static_cast<std::size_t>(x.count * k)), std::vector<double>(static_cast<std::size_t>(x.count * k))};
  for_distances(x, base, threads, [&](std::int64_t row, std::int64_t, std::span<const double> squared) {
    const Smallest best = smallest(squared, k, -1);
    std::copy(best.index.begin(), best.index.end(), result.index.begin() + row * k);
    std::transform(best.squared.begin(), best.squared.end(), result.distance.begin() + row * k, [](double value) { return std::sqrt(value); });
  });
  return result;
}

Coverage precision_recall(const SampleView& data, const SampleView& generated, std::int64_t k, int threads) {
  if (k < 1) throw ShapeError("precision and recall: k must be at least 1, got " + std::to_string(k));
  check_samples(data, generated, k + 1, "precision and recall");
  const std::vector<double> data_radii = squared_radii(data, k, threads), generated_radii = squared_radii(generated, k, threads);

  // One pass over all pairs, a row for each sample of the data. What a row says of columns is kept by row, as rows run in parallel.
  const auto rows = static_cast<std::size_t>(data.count), columns = static_cast<std::size_t>(generated.count);
  std::vector<char> covered(rows), recalled(rows);
  std::vector<std::vector<std::int32_t>> inside(rows);  // generated samples in the ball of this row
  for_distances(data, generated, threads, [&](std::int64_t row, std::int64_t, std::span<const double> squared) {
    const auto i = static_cast<std::size_t>(row);
    for (std::size_t j = 0; j < columns; ++j) {
      if (squared[j] <= data_radii[i]) inside[i].push_back(static_cast<std::int32_t>(j));
      if (squared[j] <= generated_radii[j]) recalled[i] = 1;
    }
    covered[i] = !inside[i].empty();
  });
  std::vector<char> realistic(columns);
  double balls = 0;
  for (const std::vector<std::int32_t>& ball : inside) {
    balls += static_cast<double>(ball.size());
    for (const std::int32_t j : ball) realistic[static_cast<std::size_t>(j)] = 1;
  }
  const auto share = [](const std::vector<char>& flags) {
    return static_cast<double>(std::count(flags.begin(), flags.end(), 1)) / static_cast<double>(flags.size());
  };
  return {share(realistic), share(recalled), balls / static_cast<double>(k) / static_cast<double>(columns), share(covered)};
}

}  // namespace fluxion
