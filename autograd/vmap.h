// vmap: turns a function of one example into a function of many.
//
//   // x: [features], the result: [classes]
//   const auto predict = [](const Parameters& p, const Tensor& x) { ... };
//   vmap(predict, {not_mapped, 0})(parameters, batch);     // [n, features] to [n, classes]
//   vmap(grad(loss), {not_mapped, 0})(parameters, batch);  // a gradient per example, [n, ..]
//
//   // Many directions, one primal pass:
//   vmap([&](const Tensor& v) { return jvp(f, x, v).second; })(directions);
//
// The function is called once, on tensors that stand for one example. The nodes that depend on them
// are rebuilt for all examples at once (autograd/batching.h); the others are computed once. vmap
// nests with itself and with every other transform, inside and outside compile().
#pragma once

#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "autograd/live_scope.h"
#include "engine/error.h"
#include "engine/graph/tree.h"

namespace fluxion {

// Which axis of an argument's tensors is mapped over; negative axes count from the end.
using MappedAxis = std::optional<std::int64_t>;
inline constexpr std::nullopt_t not_mapped = std::nullopt;  // all examples share the argument

struct BatchedLeaf;  // autograd/batching.h

// The machinery on flat lists: leaves that stand for one example, and the way back to all of them.
class MappedLeaves {
 public:
  // One axis per value; empty tensors stay empty. `arguments` says which argument of the mapped
  // function each value belongs to, and `where` the user's call, for errors. Throws ShapeError
  // where an axis is out of range or two sizes differ, Error where nothing is mapped.
  MappedLeaves(const std::vector<Tensor>& values, const std::vector<MappedAxis>& axes,
               const std::vector<std::size_t>& arguments = {}, std::optional<Location> where = {});

  const std::vector<Tensor>& tensors() const { return tensors_; }
  std::int64_t size() const { return size_; }
  std::vector<BatchedLeaf> leaves() const;
  // `outputs`, built from tensors(), for all examples, with the mapped axis at `axis`. Throws
  // ShapeError if an output has no such axis.
  std::vector<Tensor> batch(const std::vector<Tensor>& outputs, std::int64_t axis = 0) const;

 private:
  LiveScope scope_;
  std::vector<Tensor> tensors_;
  std::vector<Tensor> mapped_;  // mapped axis in front; empty for values that are not mapped
  std::int64_t size_ = 0;
  std::optional<Location> where_;
};

namespace detail {
MappedLeaves mapped_leaves(const std::vector<std::vector<Tensor>>& arguments,
                           const std::vector<MappedAxis>& in_axes, const Location& where);
}

// f -> the function that applies f to slice i along in_axes[k] of every tensor of argument k, for
// all i, and stacks the results along `out_axis` (negative: counted from the result's end). in_axes
// has one entry per argument; empty means axis 0 of all. Random draws of f are the same for every
// example unless their key is mapped. Throws ShapeError if sizes disagree or an axis is out of
// range, Error if no tensor is mapped or f asks for the value of a tensor that depends on a mapped
// one.
template <class F>
auto vmap(F f, std::vector<MappedAxis> in_axes = {}, std::int64_t out_axis = 0,
          Location where = Location::current()) {
  return [f = std::move(f), in_axes = std::move(in_axes), out_axis,
          where]<class... Args>(const Args&... args) {
    using Result = ResultOf<const F&, const Args&...>;
    const MappedLeaves traced = detail::mapped_leaves({leaves(args)...}, in_axes, where);
    const Result outputs =
        std::apply(f, with_leaves(std::tuple<Args...>(args...), traced.tensors()));
    return with_leaves(outputs, traced.batch(leaves(outputs), out_axis));
  };
}

}  // namespace fluxion
