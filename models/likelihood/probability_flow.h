// How likely a model thinks data are: the probability flow followed from the data to noise, with
// the change of volume on its way (Chen et al. 2018; Grathwohl et al. 2019; Song et al. 2021).
//
//   dz/dt = v(z, t),  dl/dt = div v(z, t),  z = x and l = 0 at the least noise
//   log p(x) = log N(z; 0, sigma^2 I) + l    at the most noise, sigma that of the path there
//
// It is the density of what a perfect solver makes of the sampler's noise. On vp and sub-vp, whose
// times begin at 1e-3, it is that of data with so much noise.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "engine/graph/tensor.h"
#include "models/paths/prediction.h"

namespace fluxion {

struct ProbabilityFlowOptions {
  // The divergence: 0: exactly, one JVP per element of a sample; otherwise Hutchinson's estimate
  // with so many probes of entries +-1, drawn once for a whole solve. Their mean is log p(x).
  std::int64_t probes = 0;
  // Hutch++ (autograd/divergence.h) with as many vectors of its sketch as probes, at the cost of
  // three products with the Jacobian for each.
  bool sketched = false;
  // dopri5's, of z and l together, each sample with steps of its own; or so many RK4 steps.
  double relative_tolerance = 1e-5, absolute_tolerance = 1e-5;
  std::optional<std::int64_t> rk4_steps = {};
  std::int64_t most_tries = 10'000;
};

struct FlowLikelihood {
  Tensor log_p;            // [batch], in nats
  Tensor z;                // the noise that x comes from, [batch, ..]
  Tensor divergence;       // l, [batch]
  double evaluations = 0;  // of velocity and divergence together, mean over the batch
};

class ProbabilityFlow {
 public:
  // Throws Error for options out of range, and for a network that predicts end points.
  explicit ProbabilityFlow(Predictor predictor, const ProbabilityFlowOptions& options = {});

  // Of x [batch, ..], floating; labels i32 [batch] or empty. key u32[2]: of the probes, may be
  // empty without. Throws Error where error control does not arrive, and as soon as it can't.
  FlowLikelihood operator()(const Tensor& x, const Tensor& labels = {}, const Tensor& key = {},
                            const RunOptions& run = {}) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// The flow of one batch followed by `steps` RK4 steps, as a graph to differentiate or compile.
struct FollowedFlow {
  Tensor log_p;  // [batch], in nats
  Tensor z;      // the noise that x comes from
  // With FollowOptions::costs, [batch] each (Finlay et al. 2020, How to Train Your Neural ODE):
  Tensor kinetic_energy = {};  // int |v|^2 dt
  Tensor jacobian_norm = {};   // int |dv/dz|_F^2 dt, estimated where the divergence is
};
struct FollowOptions {
  std::int64_t steps = 8;
  bool costs = false;      // also what a flow that few steps can follow has little of
  Tensor probes = {};      // [m, batch, ..] for Hutchinson's estimate; empty: the exact divergence
  Tensor labels = {};      // i32 [batch], or empty
  bool recompute = false;  // gradients compute each step again instead of keeping it
};
FollowedFlow follow_flow(const Predictor& predictor, const Tensor& x, const FollowOptions& options);
// The same for parameters whose gradient is wanted, by the adjoint equation (Chen et al. 2018):
//   da/dt = -a' df/dy,  dg/dt = -a' df/dp,  y = (z, l), followed back from the end together with y
// by as many RK4 steps. Nothing of the way there is kept. It differs from the gradient of
// follow_flow by the error of the steps. bind(p) is the predictor with parameters p, and must not
// hold others that are differentiated.
FollowedFlow follow_flow_by_adjoint(const std::function<Predictor(const Parameters&)>& bind,
                                    const Parameters& parameters, const Tensor& x,
                                    const FollowOptions& options);
// log p alone: [batch].
Tensor log_likelihood(const Predictor& predictor, const Tensor& x, std::int64_t steps,
                      const Tensor& probes = {}, const Tensor& labels = {});

// -log p / (dimensions log 2) + bits, log p in nats: bits per dimension of numbers that are
// 2^-bits apart, such as 7 for the 256 levels of pictures in [-1, 1].
double bits_per_dimension(double log_p, std::int64_t dimensions, double bits);

// Pictures of 256 levels in [-1, 1], each level spread evenly over its width: level k of 0..255
// becomes uniform in [k, k + 1) / 128 - 1. A density of x is then a bound on the probability of the
// levels (Theis et al. 2016).
Tensor dequantised(const Tensor& x, const Tensor& key);

}  // namespace fluxion
