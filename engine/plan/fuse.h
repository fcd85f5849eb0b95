// Fusion: which ops share a kernel.
//
// Elementwise ops and reductions are gathered, users before inputs, into groups that each run as
// one tape over one iteration space. A value used in several groups is either stored by one of them
// or - when it is cheap and costs no more bytes to read its sources - computed again in each.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "engine/backend.h"
#include "engine/plan/graph.h"
#include "engine/plan/view.h"

namespace fluxion::plan {

struct Cuts;  // engine/plan/split.h

// An iteration space by meaning: the sizes (without axes of size 1) of the values in it, and which
// of them are reduced.
struct Space {
  Dims sizes;
  std::vector<bool> reduced;
  bool operator==(const Space&) const = default;

  bool reduces() const;
  Dims kept() const;
  std::int64_t row_elements() const;
};

struct Group {
  Space space;
  std::vector<std::int32_t> nodes;   // hosted here, in topological order: members and copies of
                                     // values that others compute too
  std::vector<std::int32_t> stores;  // members that are written to memory
};

// The sizes of a shape without its axes of size 1.
Dims squeeze(const Shape& shape);

// Where a value of this shape is computed in the space, whose axes are `axes` over a kernel's: at
// every point, or once a row for a value without the reduced axes. Nothing if the shape has no
// place there.
std::optional<Point> canonical_point(const Space& space, const Shape& shape,
                                     const std::vector<Affine>& axes, std::size_t kernel_axes);

// A graph that fusion can work on: movement ops that don't fold into index maps, and operands that
// must lie in memory, are preceded by an explicit copy (Op::identity). No value is read in more
// than limits.max_loads places at once: a concatenation of more than half of them is done in parts.
// Carries out `cuts`, which are cuts of the given graph; what remains of them are the nodes of the
// result that must be stored.
Graph prepare(const Graph& graph, const KernelLimits& limits, Cuts& cuts);

// What the memory of a graph output or an index operand is: reshapes peeled off.
Value peel_reshapes(const Graph& graph, Value value);

// `stored` are nodes that must be written to memory and read back: no group holds one of them
// beside one of its users.
std::vector<Group> fuse(const Graph& prepared, const Capabilities& device,
                        const std::set<std::int32_t>& stored = {});

}  // namespace fluxion::plan
