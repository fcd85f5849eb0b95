#include "engine/plan/view.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "engine/divide.h"
#include "engine/graph/op_names.h"

namespace fluxion::plan {

Affine constant_affine(std::int64_t constant, std::size_t axes) {
  return {constant, Dims(axes, 0)};
}

Affine axis_affine(std::size_t axis, std::size_t axes) {
  Affine result = constant_affine(0, axes);
  result.coefficients[axis] = 1;
  return result;
}

Affine combine(const Affine& a, std::int64_t factor, const Affine& b) {
  const auto add = [factor](std::int64_t& to, std::int64_t term) {
    std::int64_t scaled = 0;
    if (__builtin_mul_overflow(factor, term, &scaled) || __builtin_add_overflow(to, scaled, &to))
      throw IndexTooLarge{};
  };
  Affine result = a;
  add(result.constant, b.constant);
  for (std::size_t k = 0; k < b.coefficients.size(); ++k)
    add(result.coefficients[k], b.coefficients[k]);
  return result;
}

Affine linear_address(const Point& point, const Shape& shape, std::size_t axes) {
  const Dims strides = row_major_strides(shape);
  Affine result = constant_affine(0, axes);
  for (std::size_t k = 0; k < point.size(); ++k) result = combine(result, strides[k], point[k]);
  return result;
}

bool depends_on(const Affine& affine, std::size_t begin, std::size_t end) {
  for (std::size_t k = begin; k < end && k < affine.coefficients.size(); ++k)
    if (affine.coefficients[k] != 0) return true;
  return false;
}

bool within_reach(const Affine& affine, const Dims& extents) {
  double reach = std::abs(static_cast<double>(affine.constant));
  for (std::size_t k = 0; k < extents.size(); ++k)
    reach += std::abs(static_cast<double>(affine.coefficients[k])) *
             static_cast<double>(std::max<std::int64_t>(extents[k] - 1, 0));
  // Doubles round; half of max_reach leaves room for that.
  return reach <= static_cast<double>(max_reach / 2);
}

namespace {

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {  // b > 0
  return a / b - (a % b < 0);
}

// An affine function as constant + factor * direction. The direction has constant 0 and
// coefficients without a common divisor, the first of which is positive. For a constant function,
// factor and direction are 0.
struct Directed {
  std::int64_t constant = 0, factor = 0;
  Affine direction;
};

Directed directed(const Affine& affine, const Dims& extents) {
  Directed result{affine.constant, 0, constant_affine(0, extents.size())};
  for (std::size_t k = 0; k < extents.size(); ++k) {
    if (extents[k] <= 1) continue;
    result.direction.coefficients[k] = affine.coefficients[k];
    result.factor = std::gcd(result.factor, affine.coefficients[k]);
  }
  if (result.factor == 0) return result;
  const Dims& coefficients = result.direction.coefficients;
  if (*std::find_if(coefficients.begin(), coefficients.end(), [](auto c) { return c != 0; }) < 0)
    result.factor = -result.factor;
  for (std::int64_t& coefficient : result.direction.coefficients) coefficient /= result.factor;
  return result;
}

// The conditions of a load: for each direction, the values [low, high) that it may take and the
// stride of the address along it.
class Conditions {
 public:
  explicit Conditions(const Dims& extents) : extents_(extents) {}

  bool never() const { return never_; }

  // Adds the condition low <= index < high; one unit of the index moves the address by `stride`.
  void require(const Directed& index, std::int64_t low, std::int64_t high, std::int64_t stride) {
    const std::int64_t constant = index.constant, factor = index.factor;
    if (factor == 0) {
      never_ = never_ || constant < low || constant >= high;
      return;
    }
    LoadGuard& guard = at(index.direction);
    AffineRange& range = guard.range;
    if (factor > 0) {
      range.low = std::max(range.low, ceil_div(low - constant, factor));
      range.high = std::min(range.high, ceil_div(high - constant, factor));
    } else {
      range.low = std::max(range.low, floor_divide(constant - high, -factor) + 1);
      range.high = std::min(range.high, floor_divide(constant - low, -factor) + 1);
    }
    guard.stride += stride * factor;
    never_ = never_ || range.low >= range.high;
  }

  // The conditions that can fail.
  std::vector<LoadGuard> guards() const {
    if (never_) return {{{constant_affine(0, extents_.size()), 0, 0}, 0}};
    std::vector<LoadGuard> result;
    for (const LoadGuard& guard : guards_) {
      const auto [low, high] = natural(guard.range.index);
      if (guard.range.low > low || guard.range.high < high) result.push_back(guard);
    }
    return result;
  }

 private:
  std::pair<std::int64_t, std::int64_t> natural(const Affine& direction) const {
    std::int64_t low = 0, high = 1;
    for (std::size_t k = 0; k < extents_.size(); ++k) {
      const std::int64_t last =
          direction.coefficients[k] * std::max<std::int64_t>(extents_[k] - 1, 0);
      (last < 0 ? low : high) += last;
    }
    return {low, high};
  }

  LoadGuard& at(const Affine& direction) {
    for (LoadGuard& guard : guards_)
      if (guard.range.index == direction) return guard;
    const auto [low, high] = natural(direction);
    guards_.push_back({{direction, low, high}, 0});
    return guards_.back();
  }

  const Dims& extents_;
  std::vector<LoadGuard> guards_;
  bool never_ = false;
};

}  // namespace

std::optional<GuardedAddress> guarded_address(const Point& point, const Shape& shape,
                                              const std::vector<AffineRange>& conditions,
                                              const IterationSpace& space) {
  const Dims& extents = space.extents;
  GuardedAddress result;
  try {
    result.address = linear_address(point, shape, extents.size());
  } catch (const IndexTooLarge&) {
    return std::nullopt;
  }
  if (!within_reach(result.address, extents)) return std::nullopt;
  // If a kept axis is empty, nothing is read. Empty rows still have values of one per row.
  if (std::find(extents.begin(), extents.end() - space.reduced_axes, 0) !=
      extents.end() - space.reduced_axes)
    return result;
  Conditions all(extents);
  for (const AffineRange& condition : conditions)
    all.require(directed(condition.index, extents), condition.low, condition.high, 0);
  // Where the conditions hold, the point lies inside the array. These ranges only prove it.
  const Dims strides = row_major_strides(shape);
  for (std::size_t k = 0; k < point.size(); ++k)
    all.require(directed(point[k], extents), 0, shape[static_cast<std::int64_t>(k)], strides[k]);
  result.guards = all.guards();
  if (all.never()) result.address = constant_affine(0, extents.size());
  return result;
}

namespace {

Step impossible() { return {Step::Outcome::impossible, {}, {}}; }

// Writes the linear index `linear` as digits of mixed radix `sizes`, each an affine function. Asks
// for a split where one axis spans two digits.
Step digits(const Affine& linear, const Dims& sizes, const IterationSpace& space, Point& into) {
  const std::size_t axes = space.extents.size();
  Dims strides(sizes.size(), 1);
  for (std::size_t j = sizes.size() - 1; j-- > 0;) strides[j] = strides[j + 1] * sizes[j + 1];
  if (linear.constant < 0) return impossible();
  Point result(sizes.size(), constant_affine(0, axes));
  std::int64_t rest = linear.constant;
  for (std::size_t j = 0; j < sizes.size(); ++j) {
    result[j].constant = rest / strides[j];
    rest %= strides[j];
  }
  for (std::size_t k = 0; k < axes; ++k) {
    const std::int64_t coefficient = linear.coefficients[k], extent = space.extents[k];
    if (coefficient == 0 || extent == 1) continue;
    if (coefficient < 0) return impossible();
    // The digit that this axis counts in: the largest stride that is not above its coefficient.
    std::size_t j = 0;
    while (j + 1 < sizes.size() && strides[j] > coefficient) ++j;
    if (coefficient % strides[j] != 0) return impossible();
    const std::int64_t steps = coefficient / strides[j];
    if (j > 0 && steps * (extent - 1) >= sizes[j]) {
      const std::int64_t carry = strides[j - 1];
      if (carry % coefficient != 0) return impossible();
      const std::int64_t inner = carry / coefficient;
      if (inner <= 1 || inner >= extent || extent % inner != 0) return impossible();
      return {Step::Outcome::split, {}, {k, inner}};
    }
    result[j].coefficients[k] = steps;
  }
  // No digit may overflow into the next.
  for (std::size_t j = 0; j < sizes.size(); ++j) {
    std::int64_t largest = result[j].constant;
    for (std::size_t k = 0; k < axes; ++k)
      largest += result[j].coefficients[k] * std::max<std::int64_t>(space.extents[k] - 1, 0);
    if (largest >= sizes[j]) return impossible();
  }
  into.insert(into.end(), result.begin(), result.end());
  return {};
}

Step follow_reshape(const Shape& from, const Shape& to, const Point& point,
                    const IterationSpace& space) {
  // Finds the point of `from` with the same row-major number as `point` of `to`. Runs of axes with
  // equal products are handled separately.
  const std::size_t axes = space.extents.size();
  Step result;
  if (to.elements() == 0) {
    result.point.assign(static_cast<std::size_t>(from.rank()), constant_affine(0, axes));
    return result;
  }
  std::int64_t f = 0, t = 0;
  while (f < from.rank() || t < to.rank()) {
    Dims sizes;
    std::int64_t product_from = 1, product_to = 1;
    Affine linear = constant_affine(0, axes);
    const auto take_from = [&] { product_from *= from[f], sizes.push_back(from[f++]); };
    const auto take_to = [&] {
      product_to *= to[t];
      linear = combine(constant_affine(0, axes), to[t], linear);
      linear = combine(linear, 1, point[static_cast<std::size_t>(t++)]);
    };
    if (f < from.rank()) take_from();
    if (t < to.rank()) take_to();
    while (product_from != product_to) {
      if (product_from < product_to) {
        if (f == from.rank()) return impossible();
        take_from();
      } else {
        if (t == to.rank()) return impossible();
        take_to();
      }
    }
    // Trailing axes of size 1 belong to the last run.
    if (f == from.rank())
      while (t < to.rank()) take_to();
    if (t == to.rank())
      while (f < from.rank()) take_from();
    if (sizes.empty()) continue;
    if (sizes.size() == 1) {
      result.point.push_back(linear);
      continue;
    }
    const Step step = digits(linear, sizes, space, result.point);
    if (step.outcome != Step::Outcome::followed) return step;
  }
  return result;
}

Step follow_unchecked(const GraphNode& movement, const Shape& operand, std::int64_t concat_start,
                      const Point& point, const IterationSpace& space) {
  const std::size_t axes = space.extents.size();
  Step result;
  switch (movement.op) {
    case Op::reshape:
      return follow_reshape(operand, movement.outputs[0].shape, point, space);
    case Op::transpose: {
      const Dims& permutation = std::get<AxesAttributes>(movement.attributes).axes;
      result.point.resize(permutation.size());
      for (std::size_t k = 0; k < permutation.size(); ++k)
        result.point[static_cast<std::size_t>(permutation[k])] = point[k];
      return result;
    }
    case Op::broadcast_to: {
      const std::size_t added = point.size() - static_cast<std::size_t>(operand.rank());
      for (std::int64_t k = 0; k < operand.rank(); ++k)
        result.point.push_back(operand[k] == 1 ? constant_affine(0, axes)
                                               : point[added + static_cast<std::size_t>(k)]);
      return result;
    }
    case Op::slice: {
      const auto& a = std::get<SliceAttributes>(movement.attributes);
      const Shape& sliced = movement.outputs[0].shape;
      for (std::size_t k = 0; k < point.size(); ++k) {
        // One element has one position, so its index is constant.
        const std::int64_t step = sliced[static_cast<std::int64_t>(k)] == 1 ? 0 : a.step[k];
        result.point.push_back(combine(constant_affine(a.start[k], axes), step, point[k]));
      }
      return result;
    }
    case Op::flip: {
      result.point = point;
      for (const std::int64_t axis : std::get<AxesAttributes>(movement.attributes).axes) {
        const auto k = static_cast<std::size_t>(axis);
        result.point[k] = combine(constant_affine(operand[axis] - 1, axes), -1, point[k]);
      }
      return result;
    }
    case Op::windows: {
      const auto& a = std::get<WindowAttributes>(movement.attributes);
      const auto pixel = [&](std::size_t k) {
        return combine(combine(constant_affine(0, axes), a.stride[k], point[k + 1]), a.dilation[k],
                       point[k + 3]);
      };
      result.point = {point[0], pixel(0), pixel(1), point[5]};
      return result;
    }
    case Op::pad: {
      const auto& a = std::get<PadAttributes>(movement.attributes);
      result.point = point;
      for (std::size_t k = 0; k < point.size(); ++k) result.point[k].constant -= a.low[k];
      return result;
    }
    case Op::concat: {
      result.point = point;
      result.point[static_cast<std::size_t>(std::get<AxisAttributes>(movement.attributes).axis)]
          .constant -= concat_start;
      return result;
    }
    default:
      return impossible();
  }
}

}  // namespace

Step follow(const GraphNode& movement, const Shape& operand, std::int64_t concat_start,
            const Point& point, const IterationSpace& space) {
  try {
    Step step = follow_unchecked(movement, operand, concat_start, point, space);
    for (const Affine& index : step.point)
      if (!within_reach(index, space.extents)) return {Step::Outcome::too_far, {}, {}};
    return step;
  } catch (const IndexTooLarge&) {
    return {Step::Outcome::too_far, {}, {}};
  }
}

std::vector<AffineRange> in_operand(const GraphNode& movement, const Shape& operand,
                                    std::int64_t concat_start, const Point& point) {
  std::vector<AffineRange> ranges;
  if (movement.op == Op::concat) {
    const std::int64_t axis = std::get<AxisAttributes>(movement.attributes).axis;
    ranges.push_back(
        {point[static_cast<std::size_t>(axis)], concat_start, concat_start + operand[axis]});
  } else if (movement.op == Op::pad) {
    const auto& a = std::get<PadAttributes>(movement.attributes);
    for (std::size_t k = 0; k < point.size(); ++k)
      if (a.low[k] != 0 || a.high[k] != 0)
        ranges.push_back({point[k], a.low[k], a.low[k] + operand[static_cast<std::int64_t>(k)]});
  }
  return ranges;
}

void refine(Affine& affine, const AxisSplit& split) {
  const std::int64_t coefficient = affine.coefficients[split.axis];
  affine.coefficients[split.axis] = coefficient * split.inner;
  affine.coefficients.insert(
      affine.coefficients.begin() + static_cast<std::ptrdiff_t>(split.axis) + 1, coefficient);
}

void refine(IterationSpace& space, const AxisSplit& split) {
  const bool reduced =
      split.axis + static_cast<std::size_t>(space.reduced_axes) >= space.extents.size();
  space.extents[split.axis] /= split.inner;
  space.extents.insert(space.extents.begin() + static_cast<std::ptrdiff_t>(split.axis) + 1,
                       split.inner);
  if (reduced) ++space.reduced_axes;
}

bool folds(const Graph& graph, Value value) {
  IterationSpace space{graph.type(value).shape.dims(), 0};
  Point start;
  for (std::size_t k = 0; k < space.extents.size(); ++k)
    start.push_back(axis_affine(k, space.extents.size()));
  // Each round succeeds, fails, or splits an axis, which can happen at most log2(size) times per
  // axis.
  for (int round = 0; round < 256; ++round) {
    struct Visit {
      Value value;
      Point point;
    };
    std::vector<Visit> pending{{value, start}};
    std::optional<AxisSplit> split;
    while (!pending.empty() && !split) {
      const Visit visit = std::move(pending.back());
      pending.pop_back();
      const GraphNode& node = graph[visit.value];
      if (info(node.op).op_class != OpClass::movement) continue;
      // A reshape of memory folds always: the row-major number is the address.
      if (node.op == Op::reshape && info(graph[node.inputs[0]].op).op_class != OpClass::movement)
        continue;
      std::int64_t concat_start = 0;
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const Shape& operand = graph.type(node.inputs[i]).shape;
        Step step = follow(node, operand, concat_start, visit.point, space);
        if (step.outcome == Step::Outcome::impossible || step.outcome == Step::Outcome::too_far)
          return false;
        if (step.outcome == Step::Outcome::split) {
          split = step.split;
          break;
        }
        pending.push_back({node.inputs[i], std::move(step.point)});
        if (node.op == Op::concat)
          concat_start += operand[std::get<AxisAttributes>(node.attributes).axis];
      }
    }
    if (!split) return true;
    for (Affine& affine : start) refine(affine, *split);
    refine(space, *split);
  }
  return false;
}

}  // namespace fluxion::plan
