// Where a few of Euler's steps should lie: on the ways of some samples, by dynamic programming
// (Nguyen et al. 2024, "Bellman Optimal Stepsize Straightening of Flow-Matching Models").
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "models/samplers/time_grid.h"

namespace fluxion {

// The stops of the cheapest way in `steps` steps from 0 to the last of `stops` places: steps + 1 of
// them, ascending. cost [stops, stops], row-major, is that of a step from row to column, of which
// those with row < column are read. Time steps stops^2. Throws Error unless 1 <= steps < stops and
// the costs are so many numbers.
std::vector<std::size_t> best_stops(std::span<const double> cost, std::size_t stops,
                                    std::size_t steps);

// The cost of a step of Euler's from state i to state j > i: the mean over `count` samples of
// |z_i + (t_j - t_i) v_i - z_j|^2, with v_i the slope of the way from i to i + 1. states
// [times][count * elements].
std::vector<double> step_costs(const std::vector<std::vector<float>>& states,
                               std::span<const double> times, std::int64_t count);

// A grid for the steps, and what its steps cost in all; beside it the cost of equal ones, as near
// to equal as stops on the fine grid are.
struct BestSteps {
  TimeGrid grid;
  double cost = 0, equal_cost = 0;
};
BestSteps best_steps(const TimeGrid& fine, const std::vector<std::vector<float>>& states,
                     std::int64_t count, std::int64_t steps);

// How many of Euler's steps the ways are followed by, for a grid of so many.
std::int64_t fine_steps(std::int64_t steps);

}  // namespace fluxion
