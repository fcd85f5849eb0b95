#include "models/evaluation/losses.h"

#include "models/layers/order.h"

namespace fluxion {

namespace {

void check_sets(const char* function, const Tensor& x, const Tensor& y, std::int64_t least,
                Location where) {
  if (x.rank() != 2 || y.rank() != 2 || x.size(1) != y.size(1) || x.size(0) < least ||
      y.size(0) < least)
    throw ShapeError(std::string(function) + " (" + to_string(where) +
                     "): wants two sets [count, dim] of at least " + std::to_string(least) +
                     " samples, got " + to_string(x.type()) + " and " + to_string(y.type()));
}

// |a_i - b_j|^2, [n, m].
Tensor squared_distances(const Tensor& a, const Tensor& b, Location where) {
  return sum(square(expand_dims(a, 1, where) - expand_dims(b, 0, where), where), {2}, false, where);
}

// |a_i - b_j| with derivative 0 where it is 0.
Tensor distances(const Tensor& a, const Tensor& b, Location where) {
  const Tensor squared = squared_distances(a, b, where);
  const Tensor apart = gt(squared, 0.0);
  return fluxion::where(apart, sqrt(fluxion::where(apart, squared, 1.0), where), 0.0);
}

}  // namespace

Tensor energy_loss(const Tensor& x, const Tensor& y, bool unbiased, Location where) {
  check_sets("energy_loss", x, y, unbiased ? 2 : 1, where);
  const auto within = [&](const Tensor& a) {
    const auto n = static_cast<double>(a.size(0));
    return sum(distances(a, a, where), {}, false, where) / (n * (unbiased ? n - 1 : n));
  };
  return 2.0 * mean(distances(x, y, where), {}, false, where) - within(x) - within(y);
}

Tensor mmd2_rbf_loss(const Tensor& x, const Tensor& y, double bandwidth, Location where) {
  check_sets("mmd2_rbf_loss", x, y, 2, where);
  const auto kernel = [&](const Tensor& a, const Tensor& b) {
    return exp(squared_distances(a, b, where) * (-0.5 / (bandwidth * bandwidth)), where);
  };
  const auto within = [&](const Tensor& a) {
    const auto n = static_cast<double>(a.size(0));
    return (sum(kernel(a, a), {}, false, where) - n) /
           (n * (n - 1));  // the diagonal is n times k(a, a) = 1
  };
  return within(x) + within(y) - 2.0 * mean(kernel(x, y), {}, false, where);
}

Tensor sliced_wasserstein2_loss(const Tensor& x, const Tensor& y, const Tensor& directions,
                                Location where) {
  check_sets("sliced_wasserstein2_loss", x, y, 1, where);
  check_sets("sliced_wasserstein2_loss", x, directions, 1, where);
  if (x.size(0) != y.size(0))
    throw ShapeError("sliced_wasserstein2_loss (" + to_string(where) +
                     "): wants sets of one size, got " + to_string(x.type()) + " and " +
                     to_string(y.type()));
  const auto projected = [&](const Tensor& a) {
    return sort(matmul(directions, swap_axes(a, 0, 1, where), where), 1, false, where);
  };
  return mean(square(projected(x) - projected(y), where), {}, false, where);
}

}  // namespace fluxion
