#include "models/optimisers/loss_scale.h"

#include <cmath>
#include <limits>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"

namespace fluxion {

void check(const LossScaleOptions& options) {
  for (const double scale : {options.least, options.initial, options.most}) {
    int exponent = 0;
    if (!(std::frexp(scale, &exponent) == 0.5) || exponent < -100 || exponent > 100)
      throw Error("loss scale: must be a power of two from 2^-100 to 2^99, got " +
                  number_text(scale));
  }
  if (!(options.least <= options.initial && options.initial <= options.most))
    throw Error("loss scale: the initial one, " + number_text(options.initial) +
                ", must be between the least, " + number_text(options.least) + ", and the most, " +
                number_text(options.most));
  if (options.interval < 1 || options.interval > std::numeric_limits<std::int32_t>::max())
    throw Error("loss scale: the interval must be in 1..2147483647, got " +
                std::to_string(options.interval));
}

LossScale initial_loss_scale(const LossScaleOptions& options, const Device& device) {
  const auto none = [&] { return Tensor::from(std::vector<std::int32_t>{0}, {}, device); };
  return {
      .scale = Tensor::from(std::vector<float>{static_cast<float>(options.initial)}, {}, device),
      .finite = none(),
      .skipped = none()};
}

LossScale next_loss_scale(const LossScaleOptions& options, const LossScale& now,
                          const Tensor& gradient_is_finite) {
  const Tensor finite = now.finite + 1.0;
  const Tensor grows = ge(finite, static_cast<double>(options.interval));
  const Tensor larger = minimum(now.scale * 2.0, options.most),
               smaller = maximum(now.scale * 0.5, options.least);
  return {.scale = where(gradient_is_finite, where(grows, larger, now.scale), smaller),
          .finite = where(gradient_is_finite, where(grows, 0.0, finite), 0.0),
          .skipped = where(gradient_is_finite, now.skipped, now.skipped + 1.0)};
}

Tensor is_finite_norm(const Tensor& norm) {
  return le(norm, static_cast<double>(std::numeric_limits<float>::max()));  // false for NaN
}

}  // namespace fluxion
