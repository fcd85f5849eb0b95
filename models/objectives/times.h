// The times between data and noise, in [0, 1], that flow objectives are trained at.
#pragma once

#include "engine/graph/ops.h"

namespace fluxion {

// With u ~ U(0, 1) and n ~ N(0, 1):
//   logit_normal   t = sigmoid(mean + std n)           Esser et al. 2024; mean -1.2 and std 1.2 are
//                                                      EDM's noise levels, sigma = t / (1 - t)
//   uniform        t = u                               Liu et al. 2022
//   mode           t = 1 - u - s (cos(pi u / 2)^2 - 1 + u), s = mode_scale in [-1, 2 / (pi - 2)]:
//                  more in the middle, or for s < 0 at the ends         Esser et al. 2024
//   cosmap         t = 1 - 1 / (tan(pi u / 2) + 1), the levels of the cosine schedule   the same
//   u_shaped       of density a (e^(a t) + e^(a (1 - t))) / (2 (e^a - 1)), a = slope > 0: most at
//                  both ends                                             Lee et al. 2024
enum class TimeDensity { logit_normal, uniform, mode, cosmap, u_shaped };

struct TimeSampler {
  TimeDensity density = TimeDensity::logit_normal;
  double mean = -0.4, std = 1;
  double mode_scale = 1.29, slope = 4;
  // t becomes shift t / (1 + (shift - 1) t), above 1 nearer to noise: for larger images
  // (Esser et al. 2024). Above 0.
  double shift = 1;
  // Row i of n takes u from [i / n, (i + 1) / n): the mean over a batch varies less. Not of
  // u_shaped.
  bool stratified = false;
};

// The largest s of `mode`, where the density reaches zero in the middle.
inline constexpr double largest_mode_scale = 1.7519383938841089;

// Times of shape `shape`, rows along its last axis. key u32[2]. Throws Error for settings out of
// range.
Tensor draw_times(const TimeSampler& sampler, const Tensor& key, const Shape& shape, DType dtype);

// The number that N(0, 1) stays below with probability u in (0, 1); in f32 to some 1e-6 of its
// size (Giles 2010). Elementwise.
Tensor normal_quantile(const Tensor& u);

}  // namespace fluxion
