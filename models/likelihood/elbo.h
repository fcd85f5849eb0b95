// A bound of the likelihood that needs no derivative: the variational one, of the reverse process
// that a denoiser describes, in continuous time (Sohl-Dickstein et al. 2015; Kingma et al. 2021).
//
//   -log p(x) <= alpha_T^2 |x|^2 / (2 sigma_T^2)             the noise at the end, against N(0, I)
//              + 1/2 int E |e - e(z)|^2 d lambda,  lambda = log(alpha^2 / sigma^2)
//              + d/2 (log(2 pi s^2) + 1)                     x from z at the least noise s
//
// with z = alpha x + sigma e, e(z) the noise that the network sees in it, s the least sigma / alpha
// that is looked at. Of the best network there can be it is E log p_s(x + s e), p_s the density of
// data under noise s, in place of log p(x).
#pragma once

#include "models/paths/prediction.h"

namespace fluxion {

struct ElboOptions {
  std::int64_t levels =
      128;  // of noise for each sample, one in each part of an even grid in lambda
  double least_noise = 0.01, most_noise = 1000;  // sigma / alpha
  double data_variance = 1;  // a guess, which the spread depends on, the mean not
};

// Minus the bound: [batch], in nats, its mean the bound itself. x [batch, ..]; labels i32 [batch]
// or empty; key u32[2]. A graph of as many calls of the network as there are levels. Throws Error
// for options out of range, and for a network that predicts end points.
Tensor elbo(const Predictor& predictor, const Tensor& x, const Tensor& key,
            const ElboOptions& options = {}, const Tensor& labels = {});

}  // namespace fluxion
