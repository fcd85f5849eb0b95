// Iteration spaces of groups: which points a kernel visits, and where in them a value is computed.
#pragma once

#include <optional>
#include <vector>

#include "engine/plan/graph.h"
#include "engine/plan/view.h"

namespace fluxion::plan {

// An iteration space by meaning: the sizes (without axes of size 1) of the values in it, and which
// of them are reduced.
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

// The space that has room for the values of both: they are equal, or one is the rows of the other.
std::optional<Space> common_space(const Space& a, const Space& b);

// The sizes of a shape without its axes of size 1.
Dims squeeze(const Shape& shape);

// Where a value of this shape is computed in the space, whose axes are `axes` over a kernel's: at
// every point, or once a row for a value without the reduced axes. Nothing if the shape has no
// place there.
std::optional<Point> canonical_point(const Space& space, const Shape& shape,
                                     const std::vector<Affine>& axes, std::size_t kernel_axes);
// The same over the axes of the space itself.
std::optional<Point> canonical_point(const Space& space, const Shape& shape);

// Whether operand `operand` of its user, computed at the points of the space, reads the value of
// node n at those points too, or at the row's if n is computed once a row.
bool reads_in_place(const Graph& graph, const Space& space, Operand operand, NodeId n);

}  // namespace fluxion::plan
