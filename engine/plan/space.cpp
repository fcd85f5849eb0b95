#include "engine/plan/space.h"

#include <algorithm>

#include "engine/graph/op_names.h"

namespace fluxion::plan {

bool Space::reduces() const {
  return std::find(reduced.begin(), reduced.end(), true) != reduced.end();
}

Dims Space::kept() const {
  Dims result;
  for (std::size_t k = 0; k < sizes.size(); ++k)
    if (!reduced[k]) result.push_back(sizes[k]);
  return result;
}

std::int64_t Space::rows() const {
  std::int64_t count = 1;
  for (std::size_t k = 0; k < sizes.size(); ++k)
    if (!reduced[k]) count *= sizes[k];
  return count;
}

std::int64_t Space::row_elements() const {
  std::int64_t count = 1;
  for (std::size_t k = 0; k < sizes.size(); ++k)
    if (reduced[k]) count *= sizes[k];
  return count;
}

Space own_space(const Graph& graph, NodeId n) {
  const GraphNode& node = graph[n];
  const bool reduction = info(node.op).op_class == OpClass::reduction;
  const Shape& wide = reduction ? graph.type(node.inputs[0]).shape : node.outputs[0].shape;
  const Dims axes = reduction ? std::get<AxesAttributes>(node.attributes).axes : Dims{};
  Space space;
  for (std::int64_t axis = 0; axis < wide.rank(); ++axis) {
    if (wide[axis] == 1) continue;
    space.sizes.push_back(wide[axis]);
    space.reduced.push_back(std::find(axes.begin(), axes.end(), axis) != axes.end());
  }
  return space;
}

std::optional<Space> common_space(const Space& a, const Space& b) {
  const auto has_room = [](const Space& space, const Space& for_space) {
    return !for_space.reduces() &&
           (for_space.sizes == space.sizes || (space.reduces() && for_space.sizes == space.kept()));
  };
  if (a == b || has_room(b, a)) return b;
  if (has_room(a, b)) return a;
  return std::nullopt;
}

Dims squeeze(const Shape& shape) {
  Dims result;
  for (const std::int64_t size : shape)
    if (size != 1) result.push_back(size);
  return result;
}

std::optional<Point> canonical_point(const Space& space, const Shape& shape,
                                     const std::vector<Affine>& axes, std::size_t kernel_axes) {
  const Dims sizes = squeeze(shape);
  const bool wide = sizes == space.sizes;
  if (!wide && !(space.reduces() && sizes == space.kept())) return std::nullopt;
  Point point;
  std::size_t k = 0;
  for (const std::int64_t size : shape) {
    if (size == 1) {
      point.push_back(constant_affine(0, kernel_axes));
      continue;
    }
    while (!wide && space.reduced[k]) ++k;
    point.push_back(axes[k++]);
  }
  return point;
}

std::optional<Point> canonical_point(const Space& space, const Shape& shape) {
  std::vector<Affine> axes;
  for (std::size_t k = 0; k < space.sizes.size(); ++k)
    axes.push_back(axis_affine(k, space.sizes.size()));
  return canonical_point(space, shape, axes, axes.size());
}

bool reads_in_place(const Graph& graph, const Space& space, Use use, NodeId n) {
  const GraphNode& user = graph[use.user];
  Value at = user.inputs[static_cast<std::size_t>(use.number)];
  // A reduction reads its operand at every point of the row.
  Space read = space;
  if (info(user.op).op_class == OpClass::reduction)
    std::fill(read.reduced.begin(), read.reduced.end(), false);
  std::optional<Point> point = canonical_point(read, graph.type(at).shape);
  const Shape& shape = graph[n].outputs[0].shape;
  const auto computed = canonical_point(space, shape);
  if (!point || !computed) return false;
  const IterationSpace iteration{space.sizes, 0};
  while (at.node != n) {
    const GraphNode& movement = graph[at];
    if (info(movement.op).op_class != OpClass::movement || movement.op == Op::pad ||
        movement.op == Op::concat)
      return false;
    Step step = follow(movement, graph.type(movement.inputs[0]).shape, 0, *point, iteration);
    if (step.outcome != Step::Outcome::followed) return false;
    point = std::move(step.point);
    at = movement.inputs[0];
  }
  const std::size_t axes = space.sizes.size();
  return linear_address(*point, shape, axes) == linear_address(*computed, shape, axes);
}

}  // namespace fluxion::plan
