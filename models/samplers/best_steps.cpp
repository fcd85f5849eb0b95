#include "models/samplers/best_steps.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "engine/error.h"

namespace fluxion {
namespace {

constexpr double unreachable = std::numeric_limits<double>::infinity();

double cost_of(std::span<const double> cost, std::size_t stops,
               const std::vector<std::size_t>& way) {
  double total = 0;
  for (std::size_t k = 0; k + 1 < way.size(); ++k) total += cost[way[k] * stops + way[k + 1]];
  return total;
}

}  // namespace

std::vector<std::size_t> best_stops(std::span<const double> cost, std::size_t stops,
                                    std::size_t steps) {
  if (steps < 1 || steps >= stops || cost.size() != stops * stops)
    throw Error("best steps: wants 1 step or more, fewer than the " + std::to_string(stops) +
                " places, and a cost for each pair of these, got " + std::to_string(steps) +
                " steps and " + std::to_string(cost.size()) + " costs");
  // least[j]: of the ways to j in so many steps; before[k][j]: where the last of k + 1 begins.
  std::vector<double> least(stops, unreachable);
  least[0] = 0;
  std::vector<std::vector<std::size_t>> before(steps, std::vector<std::size_t>(stops, 0));
  for (std::size_t k = 0; k < steps; ++k) {
    std::vector<double> next(stops, unreachable);
    for (std::size_t i = 0; i < stops; ++i)
      for (std::size_t j = i + 1; j < stops; ++j)
        if (const double total = least[i] + cost[i * stops + j]; total < next[j])
          next[j] = total, before[k][j] = i;
    least = std::move(next);
  }
  std::vector<std::size_t> way{stops - 1};
  if (!std::isfinite(least.back())) throw Error("best steps: the costs are not finite");
  for (std::size_t k = steps; k > 0; --k) way.push_back(before[k - 1][way.back()]);
  std::ranges::reverse(way);
  return way;
}

std::vector<double> step_costs(const std::vector<std::vector<float>>& states,
                               std::span<const double> times, std::int64_t count) {
  const std::size_t stops = states.size();
  if (stops < 2 || times.size() != stops || count < 1 ||
      std::ranges::any_of(states,
                          [&](const auto& each) { return each.size() != states[0].size(); }))
    throw Error("best steps: wants two states or more of the same samples, each with a time");
  std::vector<double> cost(stops * stops, 0);
  for (std::size_t i = 0; i + 1 < stops; ++i)
    for (std::size_t j = i + 1; j < stops; ++j) {
      const double stretch = (times[j] - times[i]) / (times[i + 1] - times[i]);
      double total = 0;
      for (std::size_t k = 0; k < states[i].size(); ++k) {
        const double from = states[i][k],
                     off = from + stretch * (states[i + 1][k] - from) - states[j][k];
        total += off * off;
      }
      cost[i * stops + j] = total / static_cast<double>(count);
    }
  return cost;
}

BestSteps best_steps(const TimeGrid& fine, const std::vector<std::vector<float>>& states,
                     std::int64_t count, std::int64_t steps) {
  std::vector<double> times;
  for (const GridPoint& point : fine) times.push_back(point.t);
  const std::vector<double> cost = step_costs(states, times, count);
  const std::size_t stops = fine.size(),
                    wanted = static_cast<std::size_t>(std::max<std::int64_t>(steps, 0));
  const std::vector<std::size_t> best = best_stops(cost, stops, wanted);
  BestSteps result;
  for (const std::size_t stop : best) result.grid.push_back(fine[stop]);
  std::vector<std::size_t> equal;
  for (std::size_t k = 0; k <= wanted; ++k)
    equal.push_back((k * (stops - 1) + wanted / 2) / wanted);
  result.cost = cost_of(cost, stops, best);
  result.equal_cost = cost_of(cost, stops, equal);
  return result;
}

std::int64_t fine_steps(std::int64_t steps) {
  constexpr std::int64_t least = 100;
  return std::max(least, 4 * steps);
}

}  // namespace fluxion
