// Functions with a derivative of your own, and functions that reverse mode recomputes instead of
// keeping their intermediate values.
//
//   const auto block = checkpoint(
//       [=](const Tensor& h) { return transformer_block(weights, h); }, "block");
//
//   using One = std::tuple<Tensor>;
//   const auto safe_sqrt = custom_jvp(
//       [](const Tensor& x) { return sqrt(x); },
//       [](const One& primals, const One& tangents) {
//         return std::get<0>(tangents) * 0.5 / sqrt(std::get<0>(primals) + 1e-6);
//       },
//       "safe_sqrt");
//
// Each takes callables over trees (engine/graph/tree.h) and returns a function with the signature
// and the values of f. Without derivatives it costs nothing: a plan contains f's own ops. Nothing
// here includes autograd/, so networks and inference-only builds can use it.
//
// Each call traces f on leaves of its arguments' types, so f can't ask for the value of an argument
// (as in compile()). Tensors that f captures become inputs of the traced function; they have
// derivatives as arguments do, except where a rule is stated for the arguments only. Rules live as
// long as the graphs that need them, so capture by value. A rule is called once for each derivative
// that is built, with ordinary tensors, and its results can be differentiated again. `name` appears
// in errors and pictures.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "engine/graph/tree.h"

namespace fluxion {

// The same functions on flat lists of tensors, some of which may be empty. A rule receives a
// tangent or cotangent for every floating value, zeros included, and an empty tensor for every
// other; it may return empty tensors for zeros.
namespace flat {

using Function = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;
using JvpRule = std::function<std::vector<Tensor>(const std::vector<Tensor>& primals,
                                                  const std::vector<Tensor>& tangents)>;
using VjpRule = std::function<std::vector<Tensor>(const std::vector<Tensor>& primals,
                                                  const std::vector<Tensor>& outputs,
                                                  const std::vector<Tensor>& cotangents)>;

std::vector<Tensor> checkpoint(const std::string& name, const Function& f,
                               const std::vector<Tensor>& arguments, Location where);
std::vector<Tensor> custom_jvp(const std::string& name, const Function& f, const JvpRule& rule,
                               const std::vector<Tensor>& arguments, Location where);
std::vector<Tensor> custom_linear(const std::string& name, const Function& f,
                                  const Function& transpose, const std::vector<Tensor>& arguments,
                                  Location where);
std::vector<Tensor> custom_vjp(const std::string& name, const Function& f, const VjpRule& rule,
                               const std::vector<Tensor>& arguments, Location where);

}  // namespace flat

namespace custom_detail {

// A copy of a tree that keeps no tensor alive.
template <class T>
T structure(T tree) {
  return map_tree(std::move(tree), [](const Tensor&) { return Tensor(); });
}

// f(args...), computed by call(flat f, flat arguments, result). `result` receives the structure of
// f's result when f is traced.
template <class F, class Call, class... Args>
auto through(const F& f, const Call& call, const Args&... args) {
  using Result = std::remove_cvref_t<std::invoke_result_t<const F&, const Args&...>>;
  auto result = std::make_shared<std::optional<Result>>();
  const flat::Function flat_f = [f, result, shape = structure(std::tuple<Args...>(args...))](
                                    const std::vector<Tensor>& values) {
    Result made = std::apply(f, with_leaves(shape, std::span<const Tensor>(values)));
    if (!*result)
      *result = structure(made);  // only the first trace writes it, before other threads see it
    return leaves(made);
  };
  const std::vector<Tensor> outputs = call(flat_f, leaves(std::tie(args...)), result);
  return with_leaves(Result(**result), std::span<const Tensor>(outputs));
}

}  // namespace custom_detail

// f, of which reverse mode keeps only the arguments and the captured tensors: once the cotangents
// of its results are known, it recomputes f (Chen et al. 2016, "Training Deep Nets with Sublinear
// Memory Cost"). Checkpoints nest: an inner one is recomputed inside the recomputation of the
// outer. Forward mode passes through and shares intermediate values with f. Values that f computes
// from captured tensors alone are not part of the checkpoint.
template <class F>
auto checkpoint(F f, std::string name = "", Location where = Location::current()) {
  return [f = std::move(f), name = std::move(name), where]<class... Args>(const Args&... args) {
    return custom_detail::through(
        f,
        [&](const flat::Function& flat_f, const std::vector<Tensor>& values, const auto&) {
          return flat::checkpoint(name, flat_f, values, where);
        },
        args...);
  };
}

// f with the derivative rule(primals, tangents) -> the tangents of f's result, in its structure.
// `primals` is a std::tuple of f's arguments, `tangents` of their tangents, zero for an argument
// that is constant. The rule must be linear in the tangents: reverse mode is its transpose. Taking
// the derivative throws Error if f captured a tensor that is being differentiated, ShapeError or
// DTypeError if a tangent does not fit its result.
template <class F, class Rule>
auto custom_jvp(F f, Rule rule, std::string name = "", Location where = Location::current()) {
  return [f = std::move(f), rule = std::move(rule), name = std::move(name),
          where]<class... Args>(const Args&... args) {
    return custom_detail::through(
        f,
        [&](const flat::Function& flat_f, const std::vector<Tensor>& values, const auto&) {
          const flat::JvpRule flat_rule =
              [rule, shape = custom_detail::structure(std::tuple<Args...>(args...))](
                  const std::vector<Tensor>& primals, const std::vector<Tensor>& tangents) {
                return leaves(rule(with_leaves(shape, std::span<const Tensor>(primals)),
                                   with_leaves(shape, std::span<const Tensor>(tangents))));
              };
          return flat::custom_jvp(name, flat_f, flat_rule, values, where);
        },
        args...);
  };
}

// f, which must be linear in its floating arguments together, with transpose(cotangents of f's
// result) -> the cotangents of its arguments (several as a tuple). The transpose in turn has f as
// its transpose. Captured tensors are constants of the map; derivatives with respect to them go
// through f's own graph.
template <class F, class Transpose>
auto custom_linear(F f, Transpose transpose, std::string name = "",
                   Location where = Location::current()) {
  return [f = std::move(f), transpose = std::move(transpose), name = std::move(name),
          where]<class... Args>(const Args&... args) {
    return custom_detail::through(
        f,
        [&](const flat::Function& flat_f, const std::vector<Tensor>& values, const auto& result) {
          const flat::Function flat_transpose = [transpose,
                                                 result](const std::vector<Tensor>& cotangents) {
            return leaves(transpose(with_leaves(**result, std::span<const Tensor>(cotangents))));
          };
          return flat::custom_linear(name, flat_f, flat_transpose, values, where);
        },
        args...);
  };
}

// f with the transposed derivative rule(primals, outputs, cotangents) -> the cotangents of the
// arguments (several as a tuple). `primals` is a std::tuple of f's arguments, `outputs` f's result,
// `cotangents` its cotangents. Use it for rules that only make sense backwards, such as clipping a
// gradient, and custom_jvp otherwise: forward mode through it throws Error. The rule need not save
// values of f: what both compute is computed once.
template <class F, class Rule>
auto custom_vjp(F f, Rule rule, std::string name = "", Location where = Location::current()) {
  return [f = std::move(f), rule = std::move(rule), name = std::move(name),
          where]<class... Args>(const Args&... args) {
    return custom_detail::through(
        f,
        [&](const flat::Function& flat_f, const std::vector<Tensor>& values, const auto& result) {
          const flat::VjpRule flat_rule =
              [rule, result, shape = custom_detail::structure(std::tuple<Args...>(args...))](
                  const std::vector<Tensor>& primals, const std::vector<Tensor>& outputs,
                  const std::vector<Tensor>& cotangents) {
                return leaves(rule(with_leaves(shape, std::span<const Tensor>(primals)),
                                   with_leaves(**result, std::span<const Tensor>(outputs)),
                                   with_leaves(**result, std::span<const Tensor>(cotangents))));
              };
          return flat::custom_vjp(name, flat_f, flat_rule, values, where);
        },
        args...);
  };
}

}  // namespace fluxion
