// Derivatives as functions of functions. Each takes a C++ callable over trees and returns values or
// callables of ordinary tensors, so transforms nest in any order, inside and outside compile().
//
//   auto [y, dy]   = jvp(f, x, dx);                         // forward mode: dy = J dx
//   auto [y, dy]   = jvp(f, std::tuple(x, t), std::tuple(dx, dt));
//   auto [y, pull] = vjp(f, x);   auto [gx] = pull(gy);     // reverse mode: gx = J' gy
//   auto [loss, g] = value_and_grad(f)(parameters, batch);  // in argument 0 unless told otherwise
//
// Errors name the file and line of the call, those of vjp and linearize if f has one argument.
#pragma once

#include <functional>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "autograd/linearize.h"
#include "engine/graph/tree.h"

namespace fluxion {

// f(primals...) and its derivative along tangents. `tangents` has the structure of `primals`. An
// empty Tensor is a zero tangent, and the only tangent of a tensor that is not floating. Zeros in
// the result are full-shaped. Throws DTypeError, ShapeError or DeviceError if a tangent differs
// from its tensor in that, DTypeError if that is not floating, and Error if there are more or fewer
// tangents than tensors.
template <class F, class... Args>
auto jvp(F&& f, const std::tuple<Args...>& primals, const std::tuple<Args...>& tangents,
         Location where = Location::current()) {
  using Result = ResultOf<F, const Args&...>;
  Leaves traced(leaves(primals), leaves(tangents), where);
  Result outputs = std::apply(f, with_leaves(primals, traced.tensors()));
  Result output_tangents = with_leaves(outputs, traced.push_forward(leaves(outputs)));
  return std::pair<Result, Result>(std::move(outputs), std::move(output_tangents));
}

// The same for a function of one argument.
template <class F, class T>
auto jvp(F&& f, const T& primal, const T& tangent, Location where = Location::current()) {
  return jvp(std::forward<F>(f), std::tuple<T>(primal), std::tuple<T>(tangent), where);
}

// Anything else is a mistake; one line says so.
template <class F, class... Wrong>
void jvp(F&&, const Wrong&...) {
  static_assert(sizeof...(Wrong) > 1000,
                "jvp(f, x, dx) and jvp(f, std::tuple(x, y), std::tuple(dx, dy)) take a tangent of "
                "the same type for every argument");
}

namespace detail {
// f(primals...) and its linear map there.
template <class Result, class Primals>
struct Linearized {
  Primals primals;
  Result outputs;
  std::shared_ptr<const LinearMap> map;
};

template <class F, class... Args>
auto linearized(std::optional<Location> where, F&& f, const Args&... args) {
  using Result = ResultOf<F, const Args&...>;
  const std::tuple<Args...> primals(args...);
  const Leaves traced(leaves(primals), where);
  Result outputs = std::apply(f, with_leaves(primals, traced.tensors()));
  auto map = std::make_shared<const LinearMap>(traced.linear_map(leaves(outputs)));
  return Linearized<Result, std::tuple<Args...>>{primals, outputs, std::move(map)};
}

template <class F, class... Args>
auto linearize(std::optional<Location> where, F&& f, const Args&... args) {
  const auto at = linearized(where, std::forward<F>(f), args...);
  return std::pair(at.outputs,
                   [outputs = at.outputs, map = at.map](const std::tuple<Args...>& tangents) {
                     return with_leaves(outputs, map->apply(leaves(tangents)));
                   });
}

template <class F, class... Args>
auto vjp(std::optional<Location> where, F&& f, const Args&... args) {
  using Result = ResultOf<F, const Args&...>;
  const auto at = linearized(where, std::forward<F>(f), args...);
  return std::pair(at.outputs, [primals = at.primals, map = at.map](const Result& cotangents) {
    return with_leaves(primals, map->transpose(leaves(cotangents)));
  });
}
}  // namespace detail

// f(args...) and the linear map dx -> J dx at that point. The map takes the tangents of all
// arguments as a tuple, and may be applied any number of times. It throws DTypeError, ShapeError or
// DeviceError if a tangent differs from its argument in that, and Error if there are more or fewer
// tangents; those of tensors that are not floating it does not read.
template <class F, class... Args>
auto linearize(F&& f, const Args&... args) {
  return detail::linearize({}, std::forward<F>(f), args...);
}
template <class F, class T>
auto linearize(F&& f, const T& x, Location where = Location::current()) {
  return detail::linearize(where, std::forward<F>(f), x);
}

// f(args...) and its pull-back: cotangents of the result -> cotangents of all arguments, as a
// tuple. Tensors that are not floating get an empty Tensor. The pull-back throws DTypeError,
// ShapeError or DeviceError if a cotangent differs from its result in that, and Error if there are
// more or fewer cotangents.
template <class F, class... Args>
auto vjp(F&& f, const Args&... args) {
  return detail::vjp({}, std::forward<F>(f), args...);
}
template <class F, class T>
auto vjp(F&& f, const T& x, Location where = Location::current()) {
  return detail::vjp(where, std::forward<F>(f), x);
}

// The transpose of a linear f at the shapes of `example`: cotangents of f's result -> cotangents of
// its argument. For an affine f: the transpose of its linear part; terms that do not depend on the
// argument are left out. Tensors of `example` that are not floating keep their values and get an
// empty Tensor. The transpose throws Error if f is not linear; x * stop_gradient(x) is not either.
template <class F, class T>
auto linear_transpose(F&& f, const T& example, Location where = Location::current()) {
  using Result = ResultOf<F, const T&>;
  auto map = std::make_shared<LinearMap>();
  Leaves traced(leaves(example), Leaves::linear, where);
  Result outputs = f(with_leaves(example, traced.tensors()));
  *map = traced.placeholder_map(leaves(outputs));
  return [map, example](const Result& cotangents) {
    return with_leaves(example, map->transpose(leaves(cotangents)));
  };
}

namespace detail {
template <class T>
struct SplitAuxiliary {  // f returned the loss alone
  static const Tensor& loss(const T& value) { return value; }
};
template <class A>
struct SplitAuxiliary<std::pair<Tensor, A>> {  // f returned (loss, auxiliary tree)
  static const Tensor& loss(const std::pair<Tensor, A>& value) { return value.first; }
};
}  // namespace detail

// f -> (value, gradient with respect to argument `argument`). f returns a scalar floating tensor,
// or a pair (scalar, auxiliary tree); then the value is that pair. Throws DTypeError if the scalar,
// or a tensor of the argument, is not floating, and ShapeError if the scalar has not exactly one
// element.
template <std::size_t argument = 0, class F>
auto value_and_grad(F f, Location where = Location::current()) {
  return [f = std::move(f), where]<class... Args>(const Args&... args) {
    using Result = ResultOf<const F&, const Args&...>;
    std::tuple<Args...> arguments(args...);
    auto& chosen = std::get<argument>(arguments);
    const auto original = chosen;
    Leaves traced(leaves(chosen), where);
    chosen = with_leaves(chosen, traced.tensors());
    Result result = std::apply(f, std::as_const(arguments));
    const Tensor& loss = detail::SplitAuxiliary<Result>::loss(result);
    auto gradient = with_leaves(original, traced.gradient(loss));
    return std::pair<Result, std::remove_cvref_t<decltype(original)>>(std::move(result),
                                                                      std::move(gradient));
  };
}

// f -> gradient of the scalar f with respect to argument `argument`. Throws as value_and_grad does.
template <std::size_t argument = 0, class F>
auto grad(F f, Location where = Location::current()) {
  return [inner = value_and_grad<argument>(std::move(f), where)]<class... Args>(
             const Args&... args) { return inner(args...).second; };
}

// The Hessian of the scalar f at x times v: forward over reverse. A custom_vjp has no forward mode;
// through one, take grad of the scalar <grad f, v> instead.
template <class F, class T>
T hvp(F f, const T& x, const T& v, Location where = Location::current()) {
  return jvp(grad(std::move(f), where), std::tuple<T>(x), std::tuple<T>(v), where).second;
}

// The Jacobian dy/dx of y = f(x), shape [y.., x..]. Evaluates f once and applies the linear map at
// x to a whole basis at once (autograd/vmap.h); only attention computes its scores again for every
// direction. Forward mode costs one pass per element of x, reverse mode one per element of y.
// Throws DTypeError if x or y is not floating.
Tensor jacfwd(const std::function<Tensor(const Tensor&)>& f, const Tensor& x,
              Location where = Location::current());
Tensor jacrev(const std::function<Tensor(const Tensor&)>& f, const Tensor& x,
              Location where = Location::current());

// The second derivatives of the scalar f, shape [x.., x..]: forward over reverse. Through a
// custom_vjp use jacrev(grad(f), x). Throws DTypeError if x or f's value is not floating, and
// ShapeError if that does not have exactly one element.
Tensor hessian(const std::function<Tensor(const Tensor&)>& f, const Tensor& x,
               Location where = Location::current());

}  // namespace fluxion
