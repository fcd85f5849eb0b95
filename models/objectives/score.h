// Score matching: learning s(x) = grad log p(x), from noise or from derivatives of the network
// itself. Gradients go through everything.
#pragma once

#include "engine/graph/tree.h"
#include "models/objectives/draws.h"

namespace fluxion {

// Denoising score matching (Vincent 2011): s = u(x + sigma e, sigma, 0), mean |sigma s + e|^2 / 2;
// sigma [batch].
struct DenoisingScoreMatchingResult {
  Tensor loss, score, per_sample;
  static auto members(auto& self) { return std::tie(self.loss, self.score, self.per_sample); }
};
DenoisingScoreMatchingResult denoising_score_matching(const Velocity& network, const Tensor& x,
                                                      const Tensor& e, const Tensor& sigma,
                                                      const Labels& labels = {});

// With s(x) = u(x, t, 0), J = ds/dx per sample, and probes v [probes, batch, ..] of independent +-1
// entries.
//   sliced (Song et al. 2019)        mean over probes of v' J v + (v' s)^2 / 2
//   Hutchinson (implicit, Hyvarinen) mean over probes of v' J v, plus |s|^2 / 2
struct ProbedScoreMatchingResult {
  Tensor loss, score, vJv, per_sample;  // vJv [probes, batch]
  static auto members(auto& self) {
    return std::tie(self.loss, self.score, self.vJv, self.per_sample);
  }
};
ProbedScoreMatchingResult sliced_score_matching(const Velocity& network, const Tensor& x,
                                                const Tensor& t, const Tensor& probes,
                                                const Labels& labels = {});
ProbedScoreMatchingResult implicit_score_matching_hutchinson(const Velocity& network,
                                                             const Tensor& x, const Tensor& t,
                                                             const Tensor& probes,
                                                             const Labels& labels = {});

// tr J + |s|^2 / 2 with the exact trace: one tangent per element of a sample, many at once.
struct ExactScoreMatchingResult {
  Tensor loss, score, trace, per_sample;
  static auto members(auto& self) {
    return std::tie(self.loss, self.score, self.trace, self.per_sample);
  }
};
ExactScoreMatchingResult implicit_score_matching_exact(const Velocity& network, const Tensor& x,
                                                       const Tensor& t, const Labels& labels = {});

// The velocity v(x) = u(x, t, t) and its divergence in x, [batch], exactly: one tangent per element
// of a sample, many at once.
struct VelocityDivergence {
  Tensor velocity, divergence;
  static auto members(auto& self) { return std::tie(self.velocity, self.divergence); }
};
VelocityDivergence divergence_exact(const Velocity& network, const Tensor& x, const Tensor& t,
                                    const Tensor& labels = {});

}  // namespace fluxion
