#include "tests/random/actions.h"

#include <algorithm>

#include "engine/graph/ops.h"

namespace fluxion::testing {

const std::vector<Action>& actions() {
  static const std::vector<Action> table = [] {
    std::vector<Action> all;
    add_elementwise_actions(all);
    add_movement_actions(all);
    add_index_actions(all);
    add_fused_actions(all);
    add_region_actions(all);
    return all;
  }();
  return table;
}

std::size_t action_named(const std::string& name) {
  const auto& table = actions();
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Action& action) { return action.name == name; });
  if (found == table.end()) throw Error("random programs: there is no action " + name);
  return static_cast<std::size_t>(found - table.begin());
}

Tensor fit(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  const std::int64_t have = x.elements(), want = shape.elements();
  if (have == want) return reshape(x, shape);
  Tensor flat = reshape(x, {have});
  if (have == 0) {
    flat = pad(flat, {want}, {0});
  } else if (have < want) {
    const std::int64_t copies = (want + have - 1) / have;
    flat = reshape(broadcast_to(reshape(flat, {1, have}), {copies, have}), {copies * have});
  }
  return reshape(slice_axis(flat, 0, 0, want), shape);
}

Tensor positive(const Tensor& x, std::int64_t way) {
  switch (way) {
    case 0:
      return square(x) + 0.4;
    case 1:
      return exp(0.5 * x);
    case 2:
      return sigmoid(x) + 0.25;
    case 3:
      return softplus(x) + 0.3;
    default:
      return 1.5 + sin(x);
  }
}

Tensor ramped(const Tensor& x, std::int64_t axis) {
  if (x.elements() == 0) return x;
  const auto count = static_cast<double>(axis < 0 ? x.elements() : x.size(axis));
  if (axis >= 0) return x + iota(x.shape(), axis, x.dtype(), x.device()) * (2.7 / count);
  return x + reshape(iota({x.elements()}, 0, x.dtype(), x.device()) * (2.7 / count), x.shape());
}

Tensor Scope::fitted(std::size_t i, const Shape& shape) const { return fit(in[i], shape); }

void Scope::margin(const Tensor& distance) const {
  if (options.margins && distance.elements() > 0)
    options.margins->push_back(reshape(distance, {distance.elements()}));
}

}  // namespace fluxion::testing
