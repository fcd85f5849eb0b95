#include "models/likelihood/elbo.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "models/layers/losses.h"
#include "models/samplers/time_grid.h"

namespace fluxion {

Tensor elbo(const Predictor& predictor, const Tensor& x, const Tensor& key,
            const ElboOptions& options, const Tensor& labels) {
  if (predictor.prediction == Prediction::end_point)
    throw Error("elbo: a network that predicts end points is no denoiser");
  if (!x || x.rank() < 1 || x.size(0) < 1 || x.elements() < 1)
    throw ShapeError("elbo: wants data [batch, ..]" +
                     (x ? ", got " + to_string(x.type()) : std::string()));
  if (options.levels < 1 || !(options.least_noise > 0) ||
      !(options.least_noise < options.most_noise) || !(options.data_variance > 0) ||
      !std::isfinite(options.most_noise) || !std::isfinite(options.data_variance))
    throw Error(
        "elbo: wants 1 level or more, a least noise above 0 and below the most, and a "
        "variance above 0, got " +
        std::to_string(options.levels) + ", " + number_text(options.least_noise) + ", " +
        number_text(options.most_noise) + " and " + number_text(options.data_variance));
  const Path& path = predictor.path;
  const NoiseRange range = noise_range(path, predictor.prediction);
  const double low = std::max(options.least_noise, range.low),
               high = std::min(options.most_noise, range.high);
  if (!(low < high))
    throw Error("elbo: the model knows noise from " + number_text(range.low) + " to " +
                number_text(range.high) + " times the data, which leaves nothing to look at");

  const std::int64_t batch = x.size(0);
  const double dimensions = static_cast<double>(x.elements() / batch), first = -2 * std::log(high),
               last = -2 * std::log(low),
               part = (last - first) / static_cast<double>(options.levels);
  Tensor integral = zeros({batch}, x.dtype(), x.device());
  for (std::int64_t i = 0; i < options.levels; ++i) {
    const Tensor own = fold_in(key, static_cast<std::uint32_t>(i));
    const Tensor u = uniform(fold_in(own, 0), {batch}, x.dtype());
    const Tensor lambda = first + part * (u + static_cast<double>(i));
    const Tensor ratio = exp(-0.5 * lambda), one = ones_like(ratio);
    const Tensor t = path.time_of(PathPoint{one, ratio, zeros_like(one), zeros_like(one)});
    const Tensor e = normal(fold_in(own, 1), x.shape(), x.dtype());
    const Tensor z = noised(path, x, e, t);
    const Tensor seen = predictor(Prediction::noise, z, t, labels);
    // Where little noise is left, it is |e|^2 alone, nearly: its mean is known.
    const Tensor signal = options.data_variance * exp(lambda), share = signal / (1.0 + signal);
    integral = integral + squared_norm(e - seen) - share * (squared_norm(e) - dimensions);
  }
  const Tensor of_noise = 0.5 / (high * high) * squared_norm(x);
  return -(0.5 * part * integral + of_noise +
           0.5 * dimensions * (std::log(2 * std::numbers::pi * low * low) + 1));
}

}  // namespace fluxion
