#include "models/evaluation/neighbours.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "engine/error.h"
#include "models/evaluation/distances.h"

namespace fluxion {

namespace {

using Ranked = std::vector<std::pair<double, std::int64_t>>;  // squared distance and index, in
                                                              // increasing order

// Adds a row's squared distances to its k smallest so far; position k of the row has the index
// offset + k. `skipped` is left out (-1: none).
void keep_smallest(Ranked& best, std::int64_t k, std::span<const double> squared,
                   std::int64_t offset, std::int64_t skipped) {
  const auto wanted = static_cast<std::size_t>(k);
  for (std::size_t j = 0; j < squared.size(); ++j) {
    const auto index = offset + static_cast<std::int64_t>(j);
    if ((best.size() == wanted && !(squared[j] < best.back().first)) || index == skipped) continue;
    const std::pair entry(squared[j], index);
    best.insert(std::upper_bound(best.begin(), best.end(), entry), entry);
    if (best.size() > wanted) best.pop_back();
  }
}

// How far the ball of each sample reaches, squared: to its k-th nearest in the same set, which is
// inside however distances are rounded (samples of single precision are seldom so nearly as far).
std::vector<double> squared_radii(const SampleView& x, std::int64_t k, int threads) {
  std::vector<double> result(static_cast<std::size_t>(x.count));
  for_distances(x, x, threads,
                [&](std::int64_t row, std::int64_t, std::span<const double> squared) {
                  Ranked best;
                  keep_smallest(best, k, squared, 0, row);
                  result[static_cast<std::size_t>(row)] = best.back().first * (1 + 1e-8);
                });
  return result;
}

}  // namespace

NearestSearch::NearestSearch(const SampleView& x, std::int64_t k, int threads)
    : x_(x), k_(k), threads_(threads) {
  check_samples(x, 1, "nearest neighbours");
  if (k < 1) throw ShapeError("nearest neighbours: asked for " + std::to_string(k));
  best_.resize(static_cast<std::size_t>(x.count));
}

void NearestSearch::add(const SampleView& part) {
  check_samples(x_, part, 0, "nearest neighbours");
  for_distances(x_, part, threads_,
                [&](std::int64_t row, std::int64_t, std::span<const double> squared) {
                  keep_smallest(best_[static_cast<std::size_t>(row)], k_, squared, searched_, -1);
                });
  searched_ += part.count;
}

Neighbours NearestSearch::result() const {
  if (searched_ < k_)
    throw ShapeError("nearest neighbours: asked for " + std::to_string(k_) + " of " +
                     std::to_string(searched_) + " samples");
  Neighbours result{.k = k_, .index = {}, .distance = {}};
  for (const auto& row : best_)
    for (const auto& [squared, index] : row) {
      result.index.push_back(index);
      result.distance.push_back(std::sqrt(squared));
    }
  return result;
}

Coverage precision_recall(const SampleView& data, const SampleView& generated, std::int64_t k,
                          int threads) {
  if (k < 1)
    throw ShapeError("precision and recall: k must be at least 1, got " + std::to_string(k));
  check_samples(data, generated, k + 1, "precision and recall");
  const std::vector<double> data_radii = squared_radii(data, k, threads),
                            generated_radii = squared_radii(generated, k, threads);

  // One pass over all pairs, a row for each sample of the data. What a row says of columns is kept
  // by row, as rows run in parallel.
  const auto rows = static_cast<std::size_t>(data.count),
             columns = static_cast<std::size_t>(generated.count);
  std::vector<char> covered(rows), recalled(rows);
  std::vector<std::vector<std::int32_t>> inside(rows);  // generated samples in the ball of this row
  for_distances(data, generated, threads,
                [&](std::int64_t row, std::int64_t, std::span<const double> squared) {
                  const auto i = static_cast<std::size_t>(row);
                  for (std::size_t j = 0; j < columns; ++j) {
                    if (squared[j] <= data_radii[i])
                      inside[i].push_back(static_cast<std::int32_t>(j));
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
    return static_cast<double>(std::count(flags.begin(), flags.end(), 1)) /
           static_cast<double>(flags.size());
  };
  return {share(realistic), share(recalled),
          balls / static_cast<double>(k) / static_cast<double>(columns), share(covered)};
}

}  // namespace fluxion
