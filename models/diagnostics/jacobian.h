// What the Jacobian J of a field says about it, sample by sample: whether the field is a gradient,
// and in how many directions the data lie. J is never stored; it is multiplied by vectors
// (autograd/divergence.h says what a field is).
#pragma once

#include <cstdint>
#include <vector>

#include "autograd/divergence.h"
#include "models/paths/prediction.h"

namespace fluxion {

// Means over the probes q [probes, batch, ..] of |J q - J' q|^2 and |J q|^2 + |J' q|^2, [batch]
// each, by one JVP and one VJP with each probe. The ratio of their sums is 0 for a gradient, about
// 1 for a random J, and 2 for one with J = -J'. Throws ShapeError where the probes don't fit.
struct Asymmetry {
  Tensor difference, size;
  static auto members(auto& self) { return std::tie(self.difference, self.size); }
};
Asymmetry asymmetry(const Field& f, const Tensor& x, const Tensor& probes);

// The largest singular values of each sample's J, largest first, [batch][count], by block power
// iteration on J' J from random vectors; exact where `count` is the number of elements of a sample.
// An iteration makes the error of the k-th smaller by (s_(count + 1) / s_k)^2. Throws Error for a
// count that is not in 1 .. elements.
struct SpectrumOptions {
  std::int64_t count = 1;
  int iterations = 12;
  std::uint64_t seed = 0;
};
std::vector<std::vector<double>> singular_values(const Field& f, const Tensor& x,
                                                 const SpectrumOptions& options);

// In how many directions the data around x vary by more than the noise at time t, [batch]: the
// number of singular values above 1/2 of alpha dE[x | z] / dz at z. Those of data N(m, S) are
// alpha^2 l / (alpha^2 l + sigma^2), l the eigenvalues of S (Stanczuk et al. 2024 count the
// directions of the score; Wang et al. 2024 the rank of the denoiser). At most `count` of them are
// looked at.
std::vector<double> wide_directions(const Predictor& predictor, const Tensor& z, double t,
                                    const SpectrumOptions& options, const Tensor& labels = {});

// FLIPD (Kamkari et al. 2024), [batch]: d + sigma^2 (tr ds/dz + |s|^2) with s the score at z =
// alpha x, time t: the dimension of the data around x, as t goes to no noise. The trace is exact,
// or Hutchinson's with probes [probes, batch, ..].
Tensor flipd(const Predictor& predictor, const Tensor& x, double t, const Tensor& probes = {},
             const Tensor& labels = {});

}  // namespace fluxion
