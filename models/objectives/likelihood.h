// The likelihood that a velocity model gives to data, by the instantaneous change of variables
// (Chen et al. 2018; Grathwohl et al. 2019).
#pragma once

#include "engine/graph/tree.h"
#include "models/networks/network.h"

namespace fluxion {

// The flow is followed from data x at time 0 to noise at time 1, together with l, dl/dt = div v, by
// `steps` classical Runge-Kutta steps: log p(x) = log N(z1; 0, I) + l. All [batch] but z1. The
// exact divergence costs one JVP per element of a sample.
struct LikelihoodResult {
  Tensor log_p, z1, divergence_integral;
  static auto members(auto& self) {
    return std::tie(self.log_p, self.z1, self.divergence_integral);
  }
};
LikelihoodResult log_likelihood_rk4(const Velocity& network, const Tensor& x, std::int64_t steps,
                                    const Tensor& labels = {});

}  // namespace fluxion
