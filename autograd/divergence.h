// The divergence of a vector field and estimates of it: traces of Jacobians that nobody writes
// down.
//
// A field maps x [batch, ..] to f(x) of the same type, and its rows are independent: row i of f(x)
// depends on row i of x alone. So one tangent moves all samples at once, and a product with the
// Jacobian J of every sample is a single JVP. All functions here evaluate f(x) once and push all
// their tangents through it together (autograd/vmap.h; attention alone computes its scores again
// for every tangent); gradients go through everything.
//
//   exact         tr J = sum_i e_i' J e_i                                   d products, d the
//   elements of a sample Hutchinson    mean of v' J v over probes v with E[v v'] = I             m
//   products; for +-1 entries the variance is
//                                                                           2 (|S|_F^2 - sum_i
//                                                                           S_ii^2) / m with S = (J
//                                                                           + J') / 2, for Gaussian
//                                                                           ones 2 |S|_F^2 / m
//   Hutch++       exact on the range of J applied to a few vectors, Hutchinson on what is left
//   (Meyer, Musco, Musco, Woodruff 2021)
//
// Probes are arguments: hold them fixed over a whole ODE solve, or its error control sees noise;
// draw new ones for each training step.
#pragma once

#include <functional>
#include <tuple>

#include "engine/graph/tensor.h"

namespace fluxion {

using Field = std::function<Tensor(const Tensor&)>;

struct FieldDivergence {
  Tensor value;       // f(x)
  Tensor divergence;  // [batch], or its estimate
  static auto members(auto& self) { return std::tie(self.value, self.divergence); }
};

// tr df/dx of each sample, exactly. `at_once` bounds how many of the d tangents are in memory
// together (0: all of them). Throws ShapeError unless f(x) has the shape of x and x a batch axis.
FieldDivergence divergence(const Field& f, const Tensor& x, std::int64_t at_once = 0);

// v' J v for each probe and sample, [probes, batch], from probes [probes, batch, ..].
struct ProbedField {
  Tensor value;  // f(x)
  Tensor vJv;
  static auto members(auto& self) { return std::tie(self.value, self.vJv); }
};
ProbedField probe(const Field& f, const Tensor& x, const Tensor& probes);

// The mean of v' J v over the probes [probes, batch, ..]. Throws ShapeError if the probes do not
// fit x, or there is none.
FieldDivergence hutchinson(const Field& f, const Tensor& x, const Tensor& probes);

// With Q an orthonormal basis of the range of J S, S the sketch [k, batch, ..], and P = I - Q Q':
// tr Q' J Q + mean of (P v)' J (P v) over the probes v [m, batch, ..]. 2 k + m products with J; the
// authors split a budget of b products into k = m = b / 3. Exact where the rank of J is at most k,
// and unbiased if sketch and probes are drawn apart, with the variance of Hutchinson on P J P. m
// may be 0: then only the part in the range is counted. Gradients go through Q too. Directions of J
// S that lie within 1e-5 (f32; f64: 1e-10) of their length in the span of those before them count
// as part of it.
FieldDivergence hutch_plus_plus(const Field& f, const Tensor& x, const Tensor& sketch,
                                const Tensor& probes);

// Probes [count, x..] of independent entries: +-1 with equal chances, or N(0, 1). `key` is u32[2].
Tensor rademacher_probes(const Tensor& key, const Tensor& x, std::int64_t count);
Tensor gaussian_probes(const Tensor& key, const Tensor& x, std::int64_t count);

}  // namespace fluxion
