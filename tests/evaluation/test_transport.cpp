// Transport plans against what they are defined by.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/error.h"
#include "models/data/random.h"
#include "models/evaluation/transport.h"
#include "tests/catch.h"

using namespace fluxion;

namespace {

std::vector<double> random_costs(std::size_t n, std::uint64_t seed, bool tied = false) {
  RandomSequence random(seed, n);
  std::vector<double> cost(n * n);
  for (double& value : cost) value = tied ? random.below(3) : random.uniform(-1, 4);
  return cost;
}

double total(const std::vector<double>& cost, const std::vector<std::size_t>& column_of) {
  double sum = 0;
  for (std::size_t i = 0; i < column_of.size(); ++i)
    sum += cost[i * column_of.size() + column_of[i]];
  return sum;
}

double cheapest_of_all(const std::vector<double>& cost, std::size_t n) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  double best = std::numeric_limits<double>::infinity();
  do best = std::min(best, total(cost, order));
  while (std::next_permutation(order.begin(), order.end()));
  return best;
}

double plan_cost(const std::vector<double>& cost, const std::vector<double>& plan) {
  return std::inner_product(cost.begin(), cost.end(), plan.begin(), 0.0);
}

}  // namespace

TEST_CASE("the assignment costs what the best of all permutations does", "[evaluation]") {
  for (std::size_t n = 0; n <= 7; ++n)
    for (std::uint64_t seed = 0; seed < 20; ++seed)
      for (const bool tied : {false, true}) {
        INFO(n << " rows, seed " << seed << (tied ? ", with ties" : ""));
        const std::vector<double> cost = random_costs(n, seed, tied);
        const std::vector<std::size_t> found = best_assignment(cost, n);
        std::vector<std::size_t> columns = found;
        std::ranges::sort(columns);
        for (std::size_t i = 0; i < n; ++i) REQUIRE(columns[i] == i);
        CHECK(total(cost, found) == Approx(n == 0 ? 0 : cheapest_of_all(cost, n)).margin(1e-12));
      }
}

// Large ones, by duality: no exchange of two or three rows makes it cheaper.
TEST_CASE("no exchange of rows makes a large assignment cheaper", "[evaluation]") {
  const std::size_t n = 200;
  const std::vector<double> cost = random_costs(n, 3);
  const std::vector<std::size_t> at = best_assignment(cost, n);
  const auto c = [&](std::size_t row, std::size_t of) { return cost[row * n + at[of]]; };
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < i; ++j) {
      REQUIRE(c(i, j) + c(j, i) >= c(i, i) + c(j, j) - 1e-12);
      for (std::size_t k = 0; k < j; ++k)
        REQUIRE(std::min(c(i, j) + c(j, k) + c(k, i), c(i, k) + c(k, j) + c(j, i)) >=
                c(i, i) + c(j, j) + c(k, k) - 1e-12);
    }
}

TEST_CASE("Sinkhorn's plan has the marginals and the form of entropic transport", "[evaluation]") {
  const std::size_t n = 9;
  const std::vector<double> cost = random_costs(n, 5);
  const double least = *std::ranges::min_element(cost),
               mean = std::accumulate(cost.begin(), cost.end(), 0.0) / (n * n) - least;
  for (const double epsilon : {1.0, 0.3, 0.1}) {
    INFO(epsilon);
    const std::vector<double> plan =
        sinkhorn_plan(cost, n, {.epsilon = epsilon, .tolerance = 1e-12, .most_iterations = 100000});
    for (std::size_t i = 0; i < n; ++i) {
      double row = 0, column = 0;
      for (std::size_t j = 0; j < n; ++j) row += plan[i * n + j], column += plan[j * n + i];
      CHECK(row == Approx(1.0 / n).epsilon(1e-12));
      CHECK(column == Approx(1.0 / n).epsilon(1e-9));
    }
    // log P is a sum of a term of the row, one of the column, and -cost / epsilon.
    const auto rest = [&](std::size_t i, std::size_t j) {
      return std::log(plan[i * n + j]) + cost[i * n + j] / (epsilon * mean);
    };
    for (std::size_t i = 1; i < n; ++i)
      for (std::size_t j = 1; j < n; ++j)
        CHECK(rest(i, j) - rest(0, j) - rest(i, 0) + rest(0, 0) == Approx(0).margin(1e-8));
  }
}

TEST_CASE("Sinkhorn's plan goes from any pair alike to the assignment", "[evaluation]") {
  for (const std::size_t n : {1u, 2u, 30u}) {
    INFO(n);
    const std::vector<double> cost = random_costs(n, 8);
    const double best = total(cost, best_assignment(cost, n)) / static_cast<double>(n);
    const auto at = [&](double epsilon) {
      return plan_cost(cost,
                       sinkhorn_plan(cost, n, {.epsilon = epsilon, .most_iterations = 20000}));
    };
    CHECK(at(1e-4) == Approx(best).margin(1e-3));
    CHECK(at(1e6) ==
          Approx(std::accumulate(cost.begin(), cost.end(), 0.0) / static_cast<double>(n * n)));
    CHECK(at(1e-2) <= at(1) + 1e-9);
  }
  // Costs that say nothing, and costs as far apart as numbers are.
  CHECK(sinkhorn_plan(std::vector<double>{2, 2, 2, 2}, 2, {}) ==
        std::vector<double>{0.25, 0.25, 0.25, 0.25});
  const std::vector<double> apart =
      sinkhorn_plan(std::vector<double>{0, 1e150, 1e-150, 1}, 2, {.epsilon = 1e-6});
  CHECK(apart[0] == Approx(0.5));
  CHECK(apart[3] == Approx(0.5));
  CHECK(sinkhorn_plan({}, 0, {}).empty());
}

TEST_CASE("costs that are no matrix of finite numbers are refused", "[evaluation]") {
  const std::vector<double> three = {1, 2, 3}, odd = {1, 2, 3, std::nan("")};
  for (const auto& cost : {three, odd}) {
    CHECK_THROWS_AS(best_assignment(cost, 2), Error);
    CHECK_THROWS_AS(sinkhorn_plan(cost, 2), Error);
  }
  CHECK_THROWS_AS(sinkhorn_plan(std::vector<double>{1}, 1, {.epsilon = 0}), Error);
}
