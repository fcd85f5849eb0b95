// Distributions whose velocity, score and denoiser are known in closed form on every path: what
// solvers, losses and likelihoods are checked against, and what a network's loss is measured from.
//
// Samples are vectors [batch, d]. Everything is a graph of ordinary ops, so it differentiates and
// compiles.
#pragma once

#include <vector>

#include "models/paths/prediction.h"

namespace fluxion {

// One component: mean [d] and symmetric covariance [d, d], row-major, positive semi-definite.
struct GaussianComponent {
  double weight = 1;  // above 0; weights need not add up to 1
  std::vector<double> mean, covariance;
};

// The same variance in every direction.
GaussianComponent isotropic(double weight, std::vector<double> mean, double variance);

// sum_k w_k N(m_k, S_k). With C_k = alpha^2 S_k + sigma^2 I, e_k = z - alpha m_k and
// g_k = softmax_k(log w_k + log N(z; alpha m_k, C_k)):
//
//   E[x | z] = sum_k g_k (m_k + alpha S_k C_k^-1 e_k)
//   E[e | z] = sum_k g_k sigma C_k^-1 e_k
//   score    = -sum_k g_k C_k^-1 e_k
class GaussianMixture {
 public:
  // Throws ShapeError where sizes don't fit, Error for a weight that is not above 0 or a covariance
  // that is not symmetric or has an eigenvalue below 0.
  GaussianMixture(const std::vector<GaussianComponent>& components, const Device& device,
                  DType dtype = DType::f64);

  std::int64_t dimensions() const { return means_.size(1); }

  // log p_t(z), [batch], at a point of a path, its numbers [] or [batch].
  Tensor log_density(const Tensor& z, const PathPoint& at) const;
  Tensor log_density(const Tensor& x) const;  // of the data, alpha = 1, sigma = 0
  // E[x | z] and E[e | z], [batch, d].
  struct Means {
    Tensor x, e;
  };
  Means means(const Tensor& z, const PathPoint& at) const;
  // The best network there can be: a E[x | z] + b E[e | z]. Throws Error for an end point.
  Velocity network(Prediction prediction, const Path& path) const;
  Predictor predictor(Prediction prediction, const Path& path) const {
    return {network(prediction, path), path, prediction};
  }
  // Independent samples [count, d].
  Tensor samples(const Tensor& key, std::int64_t count) const;

 private:
  friend class Gaussian;
  struct Responses {
    Tensor log_weights;  // [batch, k], of the joint density
    Tensor whitened;     // U' e_k / c, [k, batch, d]
  };
  Responses responses(const Tensor& z, const PathPoint& at) const;

  Tensor log_shares_;  // [k]
  Tensor means_;       // [k, d]
  Tensor axes_;        // [k, d, d], eigenvectors in columns
  Tensor variances_;   // [k, d], eigenvalues
};

// One Gaussian N(m, S), S = U diag(l) U', whose probability flow is solved in closed form:
//
//   J(z; t -> r) = alpha_r m + U diag(sqrt((alpha_r^2 l + sigma_r^2) / (alpha_t^2 l + sigma_t^2)))
//                  U' (z - alpha_t m)
//
// So a fit of mean and covariance can also stand in for a network over the noisiest part of a
// trajectory, where it is nearly exact (Wang and Vastola 2023).
class Gaussian {
 public:
  Gaussian(std::vector<double> mean, std::vector<double> covariance, const Device& device,
           DType dtype = DType::f64);

  // The point at time r of the trajectory through z [batch, d] at time t; both [] or [batch].
  Tensor flow_map(const Path& path, const Tensor& z, const Tensor& t, const Tensor& r) const;
  // As a network: also average velocities (z - J) / (t - r), and end points J(z; t -> the least
  // noise). Where t = r an average velocity is the velocity.
  Velocity network(Prediction prediction, const Path& path) const;
  Predictor predictor(Prediction prediction, const Path& path) const {
    return {network(prediction, path), path, prediction};
  }
  const GaussianMixture& mixture() const { return mixture_; }

 private:
  GaussianMixture mixture_;
};

// The denoiser of finitely many points [n, d], each as likely as any other: what a network that
// memorises its training set becomes, and the least loss that it can have.
// E[x | z] = sum_i softmax_i(-|z - alpha x_i|^2 / (2 sigma^2)) x_i. sigma = 0 gives NaN.
class EmpiricalData {
 public:
  explicit EmpiricalData(Tensor points);  // throws ShapeError unless [n, d] with n >= 1

  Tensor denoised(const Tensor& z, const PathPoint& at) const;
  Velocity network(Prediction prediction, const Path& path) const;  // Error for an end point

 private:
  Tensor points_;
};

}  // namespace fluxion
