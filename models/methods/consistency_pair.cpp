#include "models/methods/consistency_pair.h"

#include <algorithm>
#include <cmath>

#include "engine/graph/ops.h"

namespace fluxion {

Velocity end_of_trajectory(const Velocity& network, const Path& path) {
  return wrapped(Wrapping::consistency, network, path);
}

Method consistency_method() {
  return {.prediction = Prediction::end_point,
          .wrapping = Wrapping::consistency,
          .path = noise_level_path,
          .sampling = {.sampler = "consistency", .steps = 1}};
}

Tensor end_from(const Velocity& network, const Path& path, const Tensor& x, const Tensor& e,
                const Tensor& sigma, const Tensor& labels) {
  return end_of_trajectory(network, path)(noised(path, x, e, sigma), {.t = sigma, .r = sigma},
                                          labels);
}

MethodOption first_levels_option() {
  return whole_option("first-levels", 2, 10000, {.images = std::int64_t{10}},
                      "Intervals between noise levels at the start");
}

MethodOption last_levels_option() {
  return whole_option("last-levels", 2, 10000, {.images = std::int64_t{1280}},
                      "Intervals between noise levels at the end");
}

std::string refuse_levels(const MethodUse& use) {
  return use.options.whole("first-levels") <= use.options.whole("last-levels")
             ? ""
             : "first-levels must not be above last-levels";
}

Tensor doubling_levels(const LossArguments& arguments, std::int64_t first, std::int64_t last) {
  const double doublings =
      std::log2(std::floor(static_cast<double>(last) / static_cast<double>(first)));
  const double length =
      std::max(1.0, std::floor(static_cast<double>(arguments.use.total_steps) / (doublings + 1)));
  const Tensor stage = floor(arguments.step.to(arguments.x.dtype()) / length);
  // 2^stage, which is exact for the stages before the last level is reached.
  const Tensor doubled =
      static_cast<double>(first) * pow(2.0, minimum(stage, std::ceil(doublings) + 1));
  return minimum(round(doubled), static_cast<double>(last)) + 1.0;
}

}  // namespace fluxion
