#include "models/objectives/likelihood.h"

#include <cmath>
#include <numbers>

#include "engine/graph/ops.h"
#include "models/layers/losses.h"
#include "models/objectives/score.h"

namespace fluxion {

LikelihoodResult log_likelihood_rk4(const Velocity& network, const Tensor& x, std::int64_t steps,
                                    const Tensor& labels) {
  if (steps < 1)
    throw Error("log_likelihood_rk4: wants at least 1 step, got " + std::to_string(steps));
  const std::int64_t batch = x.size(0);
  const double h = 1 / static_cast<double>(steps),
               dimensions = static_cast<double>(x.elements() / batch);
  const auto slope = [&](const Tensor& z, double time) {
    return divergence_exact(network, z, full({batch}, time, x.dtype(), x.device()), labels);
  };
  Tensor z = x, l = zeros({batch}, x.dtype(), x.device());
  for (std::int64_t i = 0; i < steps; ++i) {
    const double t = static_cast<double>(i) * h;
    const VelocityDivergence k1 = slope(z, t);
    const VelocityDivergence k2 = slope(z + 0.5 * h * k1.velocity, t + 0.5 * h);
    const VelocityDivergence k3 = slope(z + 0.5 * h * k2.velocity, t + 0.5 * h);
    const VelocityDivergence k4 = slope(z + h * k3.velocity, t + h);
    z = z + h / 6 * (k1.velocity + 2.0 * k2.velocity + 2.0 * k3.velocity + k4.velocity);
    l = l + h / 6 * (k1.divergence + 2.0 * k2.divergence + 2.0 * k3.divergence + k4.divergence);
  }
  const Tensor normal = -0.5 * squared_norm(z) - 0.5 * dimensions * std::log(2 * std::numbers::pi);
  return {.log_p = normal + l, .z1 = z, .divergence_integral = l};
}

}  // namespace fluxion
