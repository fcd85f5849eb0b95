// Gaussian paths from data to noise: z_t = alpha(t) x + sigma(t) e, x of the data, e ~ N(0, I).
//
//   name      alpha(t)       sigma(t)                times       source
//   linear    1 - t          t                       [0, 1]      Lipman et al. 2022
//   trig      cos(pi t / 2)  sin(pi t / 2)           [0, 1]      Albergo, Vanden-Eijnden 2022
//   vp        exp(-B / 2)    sqrt(1 - alpha^2)       [1e-3, 1]   Song et al. 2021
//   sub-vp    exp(-B / 2)    1 - alpha^2             [1e-3, 1]   Song et al. 2021
//   ve        1              low (high / low)^t      [0, 1]      Song et al. 2021
//   edm       1              t                       [low, high] Karras et al. 2022
//   trigflow  cos t          sigma_data sin t        [0, pi/2]   Lu, Song 2024
//
// with B = beta_min t + (beta_max - beta_min) t^2 / 2, low = sigma_min, high = sigma_max. Two paths
// describe one process wherever sigma / alpha agree: there z of one is a multiple of z of the
// other, and x and e are the same.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "engine/graph/tensor.h"

namespace fluxion {

enum class PathKind { linear, trig, vp, sub_vp, ve, edm, trigflow };
std::string to_string(PathKind kind);
PathKind path_kind_from(const std::string& name);  // throws FormatError for an unknown name

// alpha and sigma at a time, and their derivatives in time: tensors of the shape of t, or numbers.
template <class T>
struct BasicPathPoint {
  T alpha, sigma, alpha_rate, sigma_rate;
  static auto members(auto& self) {
    return std::tie(self.alpha, self.sigma, self.alpha_rate, self.sigma_rate);
  }
};
using PathPoint = BasicPathPoint<Tensor>;
using PathNumbers = BasicPathPoint<double>;

struct Path {
  PathKind kind = PathKind::linear;
  double beta_min = 0.1, beta_max = 20;  // vp, sub-vp
  double sigma_min = 0, sigma_max = 0;   // ve, edm
  // The data's standard deviation: scales the noise of trigflow, and what EDM's F predicts.
  double sigma_data = 0.5;
  bool operator==(const Path&) const = default;

  static Path linear();
  static Path trig();
  static Path vp(double beta_min = 0.1, double beta_max = 20);
  static Path sub_vp(double beta_min = 0.1, double beta_max = 20);
  static Path ve(double sigma_min = 0.01, double sigma_max = 50);
  static Path edm(double sigma_min = 0.002, double sigma_max = 80);
  static Path trigflow(double sigma_data = 0.5);

  PathPoint at(const Tensor& t) const;
  PathNumbers at(double t) const;

  // The time at which sigma / alpha is that of `point`, found from both numbers, so that alpha may
  // be 0 where the path itself reaches 0 (linear, trig, trigflow). Beyond the path's own times the
  // formulas are continued.
  Tensor time_of(const PathPoint& point) const;
  double time_of(const PathNumbers& point) const;

  // The times that sampling runs between: of the least noise, and of the most. In vp and sub-vp the
  // velocity or the score has no limit at 0, and the first is 1e-3.
  double clean_time() const;
  double noise_time() const;
};

// The forward SDE whose marginals are the path's: dz = f z dt + g dw, f = alpha' / alpha,
// g^2 = 2 sigma sigma' - 2 (alpha' / alpha) sigma^2. Infinite where alpha is 0.
template <class T>
T drift(const BasicPathPoint<T>& at) {
  return at.alpha_rate / at.alpha;
}
template <class T>
T diffusion_squared(const BasicPathPoint<T>& at) {
  return 2.0 * at.sigma * (at.sigma_rate - drift(at) * at.sigma);
}

// z_t = alpha x + sigma e; t [] or [batch].
Tensor noised(const Path& path, const Tensor& x, const Tensor& e, const Tensor& t);

// `values`, [] or [batch], so that they broadcast over samples [batch, ..] of that rank.
Tensor over_samples(const Tensor& values, std::int64_t rank);

// Throws Error, saying what would be right, for numbers that no path can have.
void check(const Path& path);

// {"kind": "vp", "beta_min": .1, "beta_max": 20, ..}: members that are missing have their defaults.
// path_from_json throws FormatError for another kind of member, an unknown name or a wrong number.
nlohmann::json path_to_json(const Path& path);
Path path_from_json(const nlohmann::json& json);

}  // namespace fluxion
