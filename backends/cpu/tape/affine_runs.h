// Index arithmetic of the tape interpreter: affine functions of the points of a group of axes,
// visited in row-major order as straight runs.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/divide.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

// Of an axis of the iteration space. Planners may leave out trailing zero coefficients.
std::int64_t coefficient(const Affine& affine, int axis);

// Several affine functions (without their constants) over one group of axes. Neighbouring axes that
// every function steps through as through one are merged.
class AffineRuns {
 public:
  // `axes` are the group's axes in `extents`; coefficients of function f are
  // functions[f]->coefficients.
  AffineRuns(const Dims& extents, const std::vector<int>& axes,
             const std::vector<const Affine*>& functions);
  AffineRuns() = default;

  // Whether any function depends on the group.
  bool varies() const { return varies_; }
  // Step of function f along the innermost axis.
  std::int64_t step(std::size_t function) const {
    return steps_[(extents_.size() - 1) * functions_ + function];
  }
  const std::int64_t* inner_steps() const { return &steps_[(extents_.size() - 1) * functions_]; }

  // Adds the functions' values at point `index`.
  void add(std::int64_t index, std::int64_t* values) const {
    if (!varies_) return;
    for (std::size_t axis = extents_.size(); axis-- > 0;) {
      const std::int64_t position = axis == 0 ? index : index % extents_[axis];
      if (axis > 0) index /= extents_[axis];
      for (std::size_t f = 0; f < functions_; ++f)
        values[f] += position * steps_[axis * functions_ + f];
    }
  }

  // Whether points [begin, begin + count) are one straight run, each `step` after the one before.
  bool straight(std::int64_t begin, std::int64_t count) const {
    return extents_.size() == 1 || count <= 1 || begin % extents_.back() + count <= extents_.back();
  }

  // Calls run(values, n) for each straight run of [begin, begin + count); `base` are the values at
  // point 0. At most max_functions functions.
  template <class F>
  void for_runs(std::int64_t begin, std::int64_t count, const std::int64_t* base, F&& run) const;

  // The CPU's KernelLimits: an address and the ranges that guard it are one function each.
  static constexpr int max_functions = 32, max_axes = 16;

 private:
  std::size_t functions_ = 0;
  bool varies_ = false;
  std::vector<std::int64_t> extents_;  // at least one axis
  std::vector<std::int64_t> steps_;    // [axis][function]
};

template <class F>
void AffineRuns::for_runs(std::int64_t begin, std::int64_t count, const std::int64_t* base,
                          F&& run) const {
  std::int64_t values[max_functions];
  for (std::size_t f = 0; f < functions_; ++f) values[f] = base[f];
  const std::size_t axes = extents_.size();
  if (axes == 1) {
    for (std::size_t f = 0; f < functions_; ++f) values[f] += begin * steps_[f];
    run(static_cast<const std::int64_t*>(values), count);
    return;
  }
  std::int64_t position[max_axes];
  if (begin == 0) {  // common, and divisions are slow
    for (std::size_t axis = 0; axis < axes; ++axis) position[axis] = 0;
  } else {
    for (std::size_t axis = axes; axis-- > 0;) {
      position[axis] = axis == 0 ? begin : begin % extents_[axis];
      if (axis > 0) begin /= extents_[axis];
      for (std::size_t f = 0; f < functions_; ++f)
        values[f] += position[axis] * steps_[axis * functions_ + f];
    }
  }
  const std::int64_t inner = extents_[axes - 1];
  const std::int64_t* inner_step = inner_steps();
  while (count > 0) {
    const std::int64_t n = std::min(count, inner - position[axes - 1]);
    run(static_cast<const std::int64_t*>(values), n);
    count -= n;
    if (count == 0) return;
    // Return to the start of the innermost axis and step the next axis that has room.
    for (std::size_t f = 0; f < functions_; ++f) values[f] -= position[axes - 1] * inner_step[f];
    position[axes - 1] = 0;
    for (std::size_t axis = axes - 1; axis-- > 0;) {
      const std::int64_t* step = &steps_[axis * functions_];
      if (++position[axis] < extents_[axis] || axis == 0) {
        for (std::size_t f = 0; f < functions_; ++f) values[f] += step[f];
        break;
      }
      for (std::size_t f = 0; f < functions_; ++f) values[f] -= (extents_[axis] - 1) * step[f];
      position[axis] = 0;
    }
  }
}

// The three nested groups of axes that a BlockedTape splits an iteration space into.
struct AxisGroups {
  std::vector<int> batch, rows, columns;
};

// One affine function and its ranges over the groups. Function 0 is an address or an index value;
// the others must lie in [low, high).
struct Access {
  Access() = default;
  Access(const Dims& extents, const AxisGroups& groups, const Affine& address,
         const std::vector<AffineRange>& valid);

  std::vector<std::int64_t> constant, low, high;  // by function; low[0], high[0] unused
  AffineRuns batch, rows, columns;

  std::size_t functions() const { return constant.size(); }
  bool limited() const { return constant.size() > 1; }
};

// Product of the extents of some axes.
std::int64_t points(const Dims& extents, const std::vector<int>& axes);

}  // namespace fluxion::cpu_backend
