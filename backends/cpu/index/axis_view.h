// What the kernels of index ops share: tensors around one axis, and the work on them in pieces.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <variant>

#include "backends/cpu/runtime/parallel.h"
#include "engine/program/program.h"

namespace fluxion::cpu_backend {

// The fewest elements worth a task.
inline constexpr std::int64_t task_elements = 16384;

// A tensor as [outer, axis, inner] around one axis.
struct AxisView {
  std::int64_t outer = 1, axis = 1, inner = 1;
};

inline std::int64_t axis_of(const OpKernel& kernel) {
  return std::get<AxisAttributes>(kernel.attributes).axis;
}

inline AxisView view(const TensorType& type, std::int64_t axis) {
  AxisView result;
  for (std::int64_t i = 0; i < type.shape.rank(); ++i)
    (i < axis ? result.outer : i == axis ? result.axis : result.inner) *= type.shape[i];
  return result;
}

// Calls body(begin, end) over [0, count), in pieces of about task_elements / cost.
template <class Body>
void share(const ThreadPool& pool, std::int64_t count, std::int64_t cost, const Body& body) {
  const std::int64_t piece =
      std::max<std::int64_t>(task_elements / std::max<std::int64_t>(cost, 1), 1);
  const std::int64_t pieces = (count + piece - 1) / piece;
  if (pieces <= 1) {
    if (count > 0) body(std::int64_t{0}, count);
    return;
  }
  const auto work = [&](std::int64_t task) {
    body(task * piece, std::min(count, (task + 1) * piece));
  };
  pool.parallel_for(pieces, std::ref(work));  // a reference: std::function then allocates nothing
}

inline std::int64_t clamped(std::int32_t index, std::int64_t size) {
  return std::clamp<std::int64_t>(index, 0, size - 1);
}

// What many elements are added up in. f32 is summed in f64: a running sum in f32 stops growing at
// 2^24 ones.
template <class T>
using Sum = std::conditional_t<std::is_floating_point_v<T>, double, T>;

// Integer sums wrap.
template <class T>
T plus(T a, T b) {
  if constexpr (std::is_same_v<T, std::int32_t>)
    return static_cast<T>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
  else
    return a + b;
}

}  // namespace fluxion::cpu_backend
