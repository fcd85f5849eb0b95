#include "models/objectives/consistency.h"

#include <cmath>

#include "autograd/transforms.h"
#include "engine/graph/ops.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/paths/wrapping.h"

namespace fluxion {

ConsistencyTrainingResult consistency_training(const Velocity& network, const Tensor& x,
                                               const Tensor& e, const Tensor& sigma_lo,
                                               const Tensor& sigma_hi, const Labels& labels,
                                               const ConsistencyOptions& options) {
  const Tensor label = labels.dropped();
  Path path = Path::edm(options.sigma_min);
  path.sigma_data = options.sigma_data;
  const Velocity f = wrapped(Wrapping::consistency, network, path);
  const auto at = [&](const Tensor& sigma) {
    return f(noised(path, x, e, sigma), {.t = sigma, .r = sigma}, label);
  };
  ConsistencyTrainingResult result;
  result.student = at(sigma_hi);
  result.teacher = stop_gradient(at(sigma_lo));
  result.distance = pseudo_huber(result.student, result.teacher, options.c);
  result.loss = mean(result.distance / (sigma_hi - sigma_lo));
  return result;
}

TrigFlowResult consistency_trigflow(const Velocity& network, const Tensor& x, const Tensor& e,
                                    const Tensor& t, const Tensor& w, const Labels& labels,
                                    const TrigFlowOptions& options) {
  const double data = options.sigma_data, elements = static_cast<double>(x.elements() / x.size(0));
  const Tensor time = per_sample(t, x.rank()), cosine = cos(time), sine = sin(time);
  const Tensor x_t = cosine * x + sine * (data * e);
  const Tensor label = labels.dropped();
  const Tensor of_data = cosine * (data * e) - sine * x;
  Tensor dx_t = of_data;
  if (options.teacher) {
    const Tensor mean = options.teacher(x_t / data, {.t = t, .r = zeros_like(t)}, label);
    dx_t = where(options.distils, stop_gradient(data * mean), of_data);
  }
  const auto F = [&](const Tensor& z, const Tensor& t) {
    return network(z, {.t = t, .r = zeros_like(t)}, label);
  };

  TrigFlowResult result;
  std::tie(result.F, result.dFdt) =
      jvp(F, std::tuple(x_t / data, t), std::tuple(dx_t / data, ones_like(t)));
  const Tensor share = options.warmup_now ? options.warmup_now : full_like(time, options.warmup);
  const Tensor tangent = -(square(cosine) * (data * result.F - dx_t)) -
                         share * cosine * sine * (x_t + data * result.dFdt);
  const Tensor squared = squared_norm(tangent);
  result.change = squared / elements;
  Tensor norm = sqrt(squared);
  if (options.rms_norm) norm = norm / std::sqrt(elements);
  Tensor normalised = tangent / per_sample(norm + options.c, x.rank());
  if (options.teacher) {
    const Tensor residual = of_data / data - result.F;
    normalised = where(options.distils, normalised, residual / std::sqrt(elements));
    result.change = where(options.distils, result.change, squared_norm(residual) / elements);
  }
  result.tangent = stop_gradient(normalised);
  result.square = squared_norm(result.F - stop_gradient(result.F) - result.tangent) / elements;
  result.loss = mean(exp(w) * result.square - w);
  return result;
}

}  // namespace fluxion
