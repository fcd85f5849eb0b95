#include "models/layers/losses.h"

#include <limits>

namespace fluxion {

Tensor squared_norm(const Tensor& x, Location where) {
  require_tensor(x, "squared_norm", "x", where);
  if (x.rank() < 1)
    throw ShapeError("squared_norm (" + to_string(where) + "): wants [batch, ..], got " +
                     to_string(x.type()));
  if (x.rank() == 1) return square(x, where);
  Dims axes;
  for (std::int64_t axis = 1; axis < x.rank(); ++axis) axes.push_back(axis);
  return sum(square(x, where), axes, false, where);
}

Tensor pseudo_huber(const Tensor& x, const Tensor& y, double c, Location where) {
  require_tensor(x, "pseudo_huber", "x", where);
  require_tensor(y, "pseudo_huber", "y", where);
  const Tensor square = squared_norm(sub({x, where}, {y, where}), where);
  const double least = x.dtype() == DType::f64 ? std::numeric_limits<double>::min()
                                               : std::numeric_limits<float>::min();
  if (c * c < least) {
    // |x - y|, whose root has no derivative where they are equal: there, those of all orders are 0.
    const Tensor equal = eq({square, where}, {0.0, where});
    return fluxion::where(equal, {0.0, where}, sqrt(fluxion::where(equal, 1.0, square), where));
  }
  const Tensor root = sqrt(square + c * c, where);
  if (c < 0) return root - c;
  // With c > 0, root - c would cancel where |x - y| is small beside c.
  constexpr double endless = std::numeric_limits<double>::infinity();
  return fluxion::where(lt({square, where}, {endless, where}), square / (root + c), root);
}

Tensor huber(const Tensor& x, const Tensor& y, double delta, Location where) {
  require_tensor(x, "huber", "x", where);
  require_tensor(y, "huber", "y", where);
  const Tensor difference = sub({x, where}, {y, where}), size = abs(difference, where);
  return fluxion::where(le(size, delta), 0.5 * square(difference), delta * (size - 0.5 * delta));
}

}  // namespace fluxion
