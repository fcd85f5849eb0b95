// Transport plans between two sets of n equally heavy points, in double precision. Deterministic.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace fluxion {

// The column of each row in the cheapest assignment of an n x n cost matrix, row-major (shortest
// augmenting paths, Jonker and Volgenant 1987). Time n^3. Throws Error for costs that are not n^2
// finite numbers.
std::vector<std::size_t> best_assignment(std::span<const double> cost, std::size_t n);

// The plan of entropic transport (Cuturi 2013): [n, n], rows and columns summing to 1 / n, nearest
// to 0 in <P, cost> + epsilon <P, log P>. Sinkhorn's iterations in potentials, epsilon halved from
// the largest cost down (Schmitzer 2019), until the marginals are off by no more than `tolerance`
// of the mass or `most_iterations` of the last epsilon are done; rows are exact in any case. Throws
// Error as above, and for an epsilon that is not above 0.
struct SinkhornOptions {
  double epsilon = 0.05;  // in means of the costs above the least of them
  double tolerance = 1e-4;
  int most_iterations = 1000;
};
std::vector<double> sinkhorn_plan(std::span<const double> cost, std::size_t n,
                                  const SinkhornOptions& options = {});

}  // namespace fluxion
