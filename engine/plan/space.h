// Iteration spaces of groups: the points that a kernel visits, and which of them compute a value.
#pragma once

#include <optional>
#include <vector>

#include "engine/plan/graph.h"
#include "engine/plan/view.h"

namespace fluxion::plan {

// An iteration space: the sizes of the values in it, without axes of size 1, and which of these
// axes are reduced.
struct Space {
  Dims sizes;
  std::vector<bool> reduced;
  bool operator==(const Space&) const = default;

  bool reduces() const;
  Dims kept() const;
  std::int64_t rows() const;
  std::int64_t row_elements() const;
};

// The space of node n alone: an elementwise op's result, a reduction's operand.
Space own_space(const Graph& graph, NodeId n);

// The space that holds the values of both. It exists if they are equal, or if one is the rows (the
// kept axes) of the other.
std::optional<Space> common_space(const Space& a, const Space& b);

// The sizes of a shape without its axes of size 1.
Dims squeeze(const Shape& shape);

// Where the space computes a value of this shape: at every point, or once per row for a value
// without the reduced axes. `axes` are the axes of the space as functions of a kernel's axes.
// Nothing if the shape does not fit the space.
std::optional<Point> canonical_point(const Space& space, const Shape& shape,
                                     const std::vector<Affine>& axes, std::size_t kernel_axes);
// The same over the axes of the space itself.
std::optional<Point> canonical_point(const Space& space, const Shape& shape);

// Whether the use, whose user is computed at the points of the space, reads node n at the same
// points, or at the row's point if n is computed once per row.
bool reads_in_place(const Graph& graph, const Space& space, Use use, NodeId n);

}  // namespace fluxion::plan
