#include "models/layers/losses.h"

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
  const Tensor difference = sub({x, where}, {y, where});
  return sqrt(squared_norm(difference, where) + c * c, where) - c;
}

Tensor huber(const Tensor& x, const Tensor& y, double delta, Location where) {
  require_tensor(x, "huber", "x", where);
  require_tensor(y, "huber", "y", where);
  const Tensor difference = sub({x, where}, {y, where}), size = abs(difference, where);
  return fluxion::where(le(size, delta), 0.5 * square(difference), delta * (size - 0.5 * delta));
}

}  // namespace fluxion
