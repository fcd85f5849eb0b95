// What a network predicts at a point z_t = alpha x + sigma e of a path, and how each prediction is
// turned into any other. All are means, given z, of a combination y = a x + b e:
//
//   name              a                 b                 source
//   velocity          alpha'            sigma'            flow matching
//   noise             0                 1                 Ho et al. 2020
//   data              1                 0                 the denoiser
//   score             0                 -1 / sigma        grad log p_t(z)
//   v                 -sigma            alpha             Salimans, Ho 2022
//   F                 sigma / (s q)     -alpha s / q      EDM (Karras et al. 2022): s = sigma_data,
//                                                         q^2 = sigma^2 + alpha^2 s^2
//   average-velocity  is a velocity where its two times are equal (MeanFlow and flow maps)
//   end-point         is none of these: where the trajectory through z ends (consistency models)
//
// Since z is such a combination too, y2 = (b a2 - a b2) / d z + (alpha b2 - sigma a2) / d y with
// d = alpha b - sigma a: one formula, exact, and linear in the network's output.
#pragma once

#include <string>

#include "models/networks/network.h"
#include "models/paths/path.h"

namespace fluxion {

enum class Prediction { velocity, noise, data, score, v, F, average_velocity, end_point };
std::string to_string(Prediction prediction);
Prediction prediction_from(const std::string& name);  // throws FormatError for an unknown name

// The combination a x + b e, in the shape of the times that it belongs to.
struct Combination {
  Tensor a, b;
};
// Throws Error for an end point, which is no combination.
Combination combination(Prediction prediction, const Path& path, const Tensor& t);

// a x + b e: the regression target of a network with this prediction. x and e [batch, ..], t [] or
// [batch].
Tensor prediction_target(Prediction prediction, const Path& path, const Tensor& x, const Tensor& e,
                         const Tensor& t);

// y2 from y at z [batch, ..], where both are combinations at one point of the path; infinite or NaN
// where y and z don't determine y2 (d = 0: noise at sigma = 1, alpha = 0, say).
Tensor convert_prediction(const Tensor& y, const Combination& from, const Combination& to,
                          const PathPoint& at, const Tensor& z);
Tensor convert_prediction(const Tensor& y, Prediction from, Prediction to, const Path& path,
                          const Tensor& z, const Tensor& t);

// A network with what it predicts and on which path, to be asked for whatever a sampler needs.
// `network` is called at the path's own times; end points and velocities take the time `t` twice
// where they have one.
struct Predictor {
  Velocity network;
  Path path = {};
  Prediction prediction = Prediction::velocity;

  // The prediction `wanted` at z [batch, ..] and t [] or [batch]. One call of the network. Throws
  // Error where a conversion is impossible: from an end point, or to one from anything else.
  Tensor operator()(Prediction wanted, const Tensor& z, const Tensor& t,
                    const Tensor& labels = {}) const;

  // The point at time r of the trajectory through z at time t: z - (t - r) u(z, t, r) for an
  // average velocity; the end point itself, whatever r is, for an end point, whose trajectories end
  // at the least noise. Throws Error for other predictions, which know no trajectory.
  Tensor jump(const Tensor& z, const Tensor& t, const Tensor& r, const Tensor& labels = {}) const;
  bool jumps() const {
    return prediction == Prediction::average_velocity || prediction == Prediction::end_point;
  }

  // The same network seen on another path: a velocity of that path, at the point of its own path
  // where sigma / alpha agree (Path::time_of). Throws Error for an end point.
  Predictor on(const Path& other) const;
};

// A raw network F(x, c) behind EDM's input scales, as a network on `path` that predicts F:
// network(z / q, {log(sigma / alpha) / 4, 0}), q^2 = sigma^2 + alpha^2 sigma_data^2.
Velocity edm_inputs(Velocity network, const Path& path);

}  // namespace fluxion
