// Index maps: which element of a value each point of an iteration space reads, followed down
// through movement ops.
#pragma once

#include <optional>
#include <vector>

#include "engine/plan/graph.h"
#include "engine/program/program.h"

namespace fluxion::plan {

// The axes of an iteration space. Following a reshape may split an axis in two, so that every index
// stays an affine function of the axes.
struct IterationSpace {
  Dims extents;
  std::int32_t reduced_axes = 0;  // the last ones
};

// A split of axis `axis`, of extent n, into two axes of extents n / inner and inner.
struct AxisSplit {
  std::size_t axis = 0;
  std::int64_t inner = 0;
};

// The coordinates of an element of some value: one affine function of the iteration axes per axis
// of the value.
using Point = std::vector<Affine>;

Affine constant_affine(std::int64_t constant, std::size_t axes);
Affine axis_affine(std::size_t axis, std::size_t axes);
// a + factor b. Throws IndexTooLarge if a term overflows.
struct IndexTooLarge {};
Affine combine(const Affine& a, std::int64_t factor, const Affine& b);
// The row-major element number of `point` in a value of shape `shape`, in a space of `axes` axes.
Affine linear_address(const Point& point, const Shape& shape, std::size_t axes);
// Whether the value of `affine` depends on one of the axes [begin, end).
bool depends_on(const Affine& affine, std::size_t begin, std::size_t end);

// Whether `affine` stays within max_reach over a space of these extents.
bool within_reach(const Affine& affine, const Dims& extents);

// The address of element `point` of an array of shape `shape` in memory, where all of `conditions`
// hold, and its guards in the normal form of TapeLoad, which bound each axis of the array. Nothing
// if the address is beyond reach.
struct GuardedAddress {
  Affine address;
  std::vector<LoadGuard> guards;
};
std::optional<GuardedAddress> guarded_address(const Point& point, const Shape& shape,
                                              const std::vector<AffineRange>& conditions,
                                              const IterationSpace& space);

// One step down through a movement op.
struct Step {
  // split: refine the space by `split` and start again. impossible: no affine index exists.
  // too_far: the point is beyond reach (max_reach).
  enum class Outcome { followed, split, impossible, too_far } outcome = Outcome::followed;
  Point point;
  AxisSplit split;
};
// The point of the operand that a movement op reads for `point` of its result. For pad and concat
// it may lie outside of the operand (see in_operand); `concat_start` is where a concat's operand
// begins.
Step follow(const GraphNode& movement, const Shape& operand, std::int64_t concat_start,
            const Point& point, const IterationSpace& space);

// The conditions under which `point` of the result of a pad or concat lies in the operand.
std::vector<AffineRange> in_operand(const GraphNode& movement, const Shape& operand,
                                    std::int64_t concat_start, const Point& point);

// Rewrites an affine function, or a space, over the split axes.
void refine(Affine& affine, const AxisSplit& split);
void refine(IterationSpace& space, const AxisSplit& split);

// Whether a chain of movement ops ending in `value` folds into index maps over value's own axes.
bool folds(const Graph& graph, Value value);

}  // namespace fluxion::plan
