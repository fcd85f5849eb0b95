// The divergence of a vector field, exact or estimated: the trace of a Jacobian that is never
// stored.
//
// A field maps x [batch, ..] to f(x) of the same type. Its rows are independent: row i of f(x)
// depends on row i of x only. So one JVP multiplies the Jacobian J of every sample by a vector.
// All functions here evaluate f(x) once and push all their tangents through it together
// (autograd/vmap.h); only attention computes its scores again for every tangent. Gradients flow
// through all of it.
//
//   exact        tr J = sum_i e_i' J e_i                    d products, d = elements of a sample
//   Hutchinson   mean of v' J v over m probes v, E[v v'] = I            m products
//                variance with S = (J + J') / 2:
//                  entries +-1   2 (|S|_F^2 - sum_i S_ii^2) / m
//                  Gaussian      2 |S|_F^2 / m
//   Hutch++      exact on the range of J applied to a few vectors, Hutchinson on the rest
//                (Meyer, Musco, Musco, Woodruff 2021)
//
// The same products say how large J is: |J|_F^2 = sum_i |J e_i|^2 = E |J v|^2.
//
// Probes are arguments. Keep them fixed during an ODE solve: its error control would see new ones
// as noise. Draw new ones for each training step.
#pragma once

#include <functional>
#include <tuple>

#include "engine/graph/tensor.h"

namespace fluxion {

using Field = std::function<Tensor(const Tensor&)>;

struct FieldDivergence {
  Tensor value;         // f(x)
  Tensor divergence;    // [batch], or its estimate
  Tensor squared_norm;  // |J|_F^2, [batch], or its estimate by the same products
  static auto members(auto& self) {
    return std::tie(self.value, self.divergence, self.squared_norm);
  }
};

// tr df/dx of each sample, exactly. `at_once` bounds how many of the d tangents are in memory at a
// time (0: all). Throws ShapeError unless x has a batch axis and f(x) the shape of x.
FieldDivergence divergence(const Field& f, const Tensor& x, std::int64_t at_once = 0);

// v' J v for each probe and sample, [probes, batch], from probes [probes, batch, ..].
struct ProbedField {
  Tensor value;  // f(x)
  Tensor vJv;
  static auto members(auto& self) { return std::tie(self.value, self.vJv); }
};
ProbedField probe(const Field& f, const Tensor& x, const Tensor& probes);

// The mean of v' J v over the probes [probes, batch, ..]. Throws ShapeError if there are no probes
// or they do not fit x.
FieldDivergence hutchinson(const Field& f, const Tensor& x, const Tensor& probes);

// Hutch++: tr Q' J Q + mean of (P v)' J (P v) over the probes v [m, batch, ..]. Q is an
// orthonormal basis of the range of J S, S the sketch [k, batch, ..], and P = I - Q Q'.
// Costs 2 k + m products with J; the authors split a budget of b products into k = m = b / 3.
// Exact if the rank of J is at most k. Unbiased if sketch and probes are drawn independently; the
// variance is Hutchinson's on P J P. With m = 0 only the part in the range of J S is counted.
// Gradients flow through Q too. A column of J S whose part outside the span of the columns before
// it is shorter than 1e-5 (f64: 1e-10) of its length counts as inside.
FieldDivergence hutch_plus_plus(const Field& f, const Tensor& x, const Tensor& sketch,
                                const Tensor& probes);

// Probes [count, x..] of independent entries: +-1 with equal chances, or N(0, 1). `key` is u32[2].
Tensor rademacher_probes(const Tensor& key, const Tensor& x, std::int64_t count);
Tensor gaussian_probes(const Tensor& key, const Tensor& x, std::int64_t count);

}  // namespace fluxion
