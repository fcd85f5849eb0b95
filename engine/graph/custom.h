// Functions with a derivative of your own, and functions that reverse mode computes again instead
// of keeping what they computed on the way.
//
//   const auto block = checkpoint([&](const Tensor& h) { return transformer_block(weights, h); },
//   "block");
//
//   const auto safe_sqrt = custom_jvp([](const Tensor& x) { return sqrt(x); },
//                                     [](const std::tuple<Tensor>& primals, const
//                                     std::tuple<Tensor>& tangents) {
//                                       return std::get<0>(tangents) * 0.5 /
//                                       sqrt(std::get<0>(primals) + 1e-6);
//                                     }, "safe_sqrt");
//
// Each takes callables over trees (engine/graph/tree.h) and returns one with f's signature, which
// computes f. Where no derivative is taken it costs nothing: a plan contains f's own ops. Nothing
// here includes autograd/, so that networks and inference-only builds can use it.
//
// f is traced on leaves of its arguments' types at each call, so, as in compile(), the value of an
// argument can't be asked for in f. Tensors that f captures are inputs of the traced function, and
// have derivatives as arguments have, except where a rule is stated for the arguments only. Rules
// live as long as graphs that need them: capture by value. They are called when a derivative is
// built, once each time, with ordinary tensors, and their results can be differentiated again.
// `name` is for errors and pictures.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "engine/graph/tree.h"

namespace fluxion {

// On flat lists of tensors, some of which may be empty. A rule's list of tangents or cotangents has
// a tensor for every one that it differentiates, zeros included, and an empty one for each that is
// not floating; what it returns may have empty tensors for zeros.
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

// f(args...) through call(flat f, flat arguments, where the structure of f's result will be).
template <class F, class Call, class... Args>
auto through(const F& f, const Call& call, const Args&... args) {
  using Result = std::remove_cvref_t<std::invoke_result_t<const F&, const Args&...>>;
  auto result = std::make_shared<std::optional<Result>>();
  const flat::Function flat_f = [f, result, shape = structure(std::tuple<Args...>(args...))](
                                    const std::vector<Tensor>& values) {
    Result made = std::apply(f, with_leaves(shape, std::span<const Tensor>(values)));
    if (!*result)
      *result = structure(made);  // written by the first trace, before another thread can see it
    return leaves(made);
  };
  const std::vector<Tensor> outputs = call(flat_f, leaves(std::tie(args...)), result);
  return with_leaves(Result(**result), std::span<const Tensor>(outputs));
}

}  // namespace custom_detail

// f, of which reverse mode keeps the arguments and captured tensors only: when the cotangents of
// its results are known it computes f again (Chen et al. 2016, "Training Deep Nets with Sublinear
// Memory Cost"). Checkpoints nest: what is inside one is recomputed, and inside of that again.
// Forward mode passes through, and shares what it computes with f. What f computes from captured
// tensors alone is no part of it.
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

// f with the derivative rule(primals, tangents): std::tuple of f's arguments, and of their tangents
// -> the tangents of f's result, in its structure. The tangents of arguments that do not move are
// zeros. Reverse mode is the transpose of what the rule computes from the tangents, which must be
// linear in them. Throws Error where f captured a tensor that is being differentiated, ShapeError
// or DTypeError where a tangent does not fit its result.
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

// f, linear in its floating arguments together, with transpose(cotangents of f's result) -> the
// cotangents of its arguments (several as a tuple). The transpose is such a function too, with f as
// its transpose. What f captured is constant for the map; derivatives in it go through f's own
// graph.
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

// f with the transposed derivative rule(primals, outputs, cotangents): std::tuple of f's arguments,
// f's result, and the cotangents of it -> the cotangents of the arguments (several as a tuple). For
// rules that only make sense backwards, such as clipping what flows back: forward mode through it
// throws Error, so prefer custom_jvp. Nothing need be saved for the rule: what it computes again,
// and f computed, is computed once.
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
