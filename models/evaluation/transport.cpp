#include "models/evaluation/transport.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "engine/error.h"
#include "engine/number_text.h"

namespace fluxion {
namespace {

void check_costs(std::span<const double> cost, std::size_t n, const char* what) {
  const auto finite = [](double value) { return std::isfinite(value); };
  if (cost.size() != n * n || !std::ranges::all_of(cost, finite))
    throw Error(std::string(what) + ": wants the " + std::to_string(n) + " x " + std::to_string(n) +
                " costs as finite numbers, got " + std::to_string(cost.size()) + " numbers");
}

}  // namespace

std::vector<std::size_t> best_assignment(std::span<const double> cost, std::size_t n) {
  check_costs(cost, n, "assignment");
  const std::size_t none = n;
  constexpr double infinite = std::numeric_limits<double>::infinity();
  std::vector<std::size_t> column_of(n, none), row_of(n, none);
  // Prices near the best come from auctions (Bertsekas 1988): a row takes the column that is best
  // for it, and lowers its price by what it is better than the next and a little more, so that bids
  // end; who held it bids again. With ever less of that little, prices come nearer.
  std::vector<double> price(n, 0);
  const auto [low, high] = std::minmax_element(cost.begin(), cost.end());
  const double range = n > 1 ? *high - *low : 0;
  for (double little = range / 8; little > range / (20 * static_cast<double>(n)); little /= 8) {
    std::ranges::fill(row_of, none);
    std::vector<std::size_t> waiting(n);
    std::iota(waiting.rbegin(), waiting.rend(), std::size_t{0});
    while (!waiting.empty()) {
      const std::size_t row = waiting.back();
      waiting.pop_back();
      const double* const costs = &cost[row * n];
      double least = infinite, next = infinite;
      std::size_t best = 0;
      for (std::size_t j = 0; j < n; ++j) {
        const double reduced = costs[j] - price[j];
        if (reduced < next) {
          if (reduced < least)
            next = least, least = reduced, best = j;
          else
            next = reduced;
        }
      }
      price[best] -= next - least + little;
      if (row_of[best] != none) waiting.push_back(row_of[best]);
      row_of[best] = row;
    }
  }
  // Rows whose best column is free take it at these prices.
  std::ranges::fill(row_of, none);
  for (std::size_t i = 0; i < n; ++i) {
    std::size_t best = 0;
    for (std::size_t j = 1; j < n; ++j)
      if (cost[i * n + j] - price[j] < cost[i * n + best] - price[best]) best = j;
    if (row_of[best] == none) row_of[best] = i, column_of[i] = best;
  }

  // What is left joins one at a time, each along the shortest augmenting path (Dijkstra on the
  // costs less the prices).
  std::vector<double> distance(n);
  std::vector<std::size_t> before(n), open(n);
  for (std::size_t start = 0; start < n; ++start) {
    if (column_of[start] != none) continue;
    std::iota(open.begin(), open.end(), std::size_t{0});
    for (std::size_t j = 0; j < n; ++j)
      distance[j] = cost[start * n + j] - price[j], before[j] = start;
    std::size_t settled = 0, column = none;
    double reached = 0;
    while (true) {
      std::size_t nearest = settled;
      for (std::size_t k = settled; k < n; ++k)
        if (distance[open[k]] < distance[open[nearest]]) nearest = k;
      column = open[nearest];
      reached = distance[column];
      if (row_of[column] == none) break;
      std::swap(open[settled++], open[nearest]);
      const std::size_t row = row_of[column];
      const double* const costs = &cost[row * n];
      const double shift = reached - (costs[column] - price[column]);
      for (std::size_t k = settled; k < n; ++k) {
        const std::size_t j = open[k];
        const double through = costs[j] - price[j] + shift;
        if (through < distance[j]) distance[j] = through, before[j] = row;
      }
    }
    for (std::size_t k = 0; k < settled; ++k) price[open[k]] += distance[open[k]] - reached;
    for (std::size_t row = none; row != start;) {
      row = before[column];
      row_of[column] = row;
      std::swap(column, column_of[row]);
    }
  }
  return column_of;
}

std::vector<double> sinkhorn_plan(std::span<const double> cost, std::size_t n,
                                  const SinkhornOptions& options) {
  check_costs(cost, n, "sinkhorn");
  if (!(options.epsilon > 0) || !std::isfinite(options.epsilon))
    throw Error("sinkhorn: epsilon must be a number above 0, got " + number_text(options.epsilon));
  using Matrix = Eigen::Array<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto size = static_cast<Eigen::Index>(n);
  std::vector<double> result(n * n, n == 0 ? 0 : 1 / static_cast<double>(n * n));
  if (n == 0) return result;
  const Eigen::Map<const Matrix> all(cost.data(), size, size);
  // The plan does not change where costs are moved as a whole.
  const double low = all.minCoeff();
  const Matrix costs = all - low;
  const double most = costs.maxCoeff(), last = options.epsilon * costs.mean();
  if (!(last > 0)) return result;

  const double mass = 1 / static_cast<double>(n);
  constexpr double tiny = 1e-300,
                   far = 1e30;  // of a scaling: what it has gathered is absorbed then
  Eigen::ArrayXd f = Eigen::ArrayXd::Zero(size), g = f, u, v;
  Matrix kernel;
  double epsilon = std::max(most, last);
  const auto absorb = [&](double next) {
    if (u.size() > 0) f += epsilon * u.log(), g += epsilon * v.log();
    epsilon = next;
    kernel = (((-costs).colwise() + f).rowwise() + g.transpose()) / epsilon;
    kernel = kernel.exp();
    u = v = Eigen::ArrayXd::Ones(size);
  };
  const auto scaling = [&](const Eigen::VectorXd& sums) {
    return Eigen::ArrayXd(mass / sums.array().max(tiny));
  };
  absorb(epsilon);
  while (true) {
    const bool final = epsilon <= last;
    const double wanted = final ? options.tolerance : std::max(options.tolerance, 0.01);
    const int most_now = final ? options.most_iterations : 50;
    for (int iteration = 0; iteration < most_now; ++iteration) {
      const Eigen::VectorXd rows = kernel.matrix() * v.matrix();
      const double error = (u * rows.array() - mass).abs().sum();
      u = scaling(rows);
      if (iteration > 0 && error <= wanted) break;
      v = scaling(kernel.matrix().transpose() * u.matrix());
      const auto beyond = [&](const Eigen::ArrayXd& x) {
        return x.maxCoeff() > far || x.minCoeff() < 1 / far;
      };
      if (beyond(u) || beyond(v)) absorb(epsilon);
    }
    // Whatever is left to the columns, every row has its mass.
    u = scaling(kernel.matrix() * v.matrix());
    if (final) break;
    absorb(std::max(epsilon / 2, last));
  }
  Eigen::Map<Matrix>(result.data(), size, size) = (kernel.colwise() * u).rowwise() * v.transpose();
  return result;
}

}  // namespace fluxion
