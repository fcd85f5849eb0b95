// Easy consistency tuning: two noise levels r < t of one trajectory that come together stage by
// stage; at first r is 0, which is a denoiser's loss.
#include <cmath>

#include "engine/graph/ops.h"
#include "models/methods/consistency_pair.h"

namespace fluxion {
namespace {

constexpr double widening = 8, slope = 1;
// The levels of a pair stay so far apart, as a share of the upper one: in single precision a
// difference of nearer ones is mostly rounding, and at last 0.
constexpr double least_gap = 1e-4;

// r = max(0, t - t q^-(stage + 1) (1 + 8 sigmoid(-t))), and at least the path's own least level,
// where f is its argument.
Tensor lower_level(const LossArguments& arguments, const Path& path, const Tensor& t) {
  const MethodOptions& options = arguments.use.options;
  const double length = std::max(1.0, std::floor(static_cast<double>(arguments.use.total_steps) /
                                                 static_cast<double>(options.whole("stages"))));
  // A run that goes on beyond its planned steps stays at the last stage.
  const Tensor stage = minimum(floor(arguments.step.to(t.dtype()) / length),
                               static_cast<double>(options.whole("stages") - 1));
  const Tensor gap =
      pow(options.real("shrink"), -(stage + 1.0)) * (1.0 + widening * sigmoid(-slope * t));
  return maximum(t - t * maximum(gap, least_gap), path.sigma_min);
}

LossValue ect_loss(const LossArguments& arguments) {
  const MethodOptions& options = arguments.use.options;
  const Path path = noise_level_path(options);
  const Tensor &x = arguments.x, e = drawn_noise(arguments), labels = drawn_labels(arguments);
  // Above the least level, so that there is a lower one.
  const Tensor t = maximum(drawn_levels(arguments, path), 1.01 * path.sigma_min);
  const Tensor r = lower_level(arguments, path, t);
  const Tensor student = end_from(arguments.velocity, path, x, e, t, labels);
  const Tensor teacher = stop_gradient(end_from(arguments.velocity, path, x, e, r, labels));
  return {mean(pseudo_huber(student, teacher, options.real("huber-offset")) / (t - r)),
          per_element(squared_norm(student - teacher), x)};
}

}  // namespace

Method ect_method() {
  Method method = consistency_method();
  method.name = "ect";
  method.summary =
      "The end of the trajectory through a point, from two noise levels that come together";
  method.paper = "Geng et al. 2024, Consistency Models Made Easy, arXiv 2406.14548";
  method.options = noise_level_options(
      {whole_option("stages", 1, 100, {.images = std::int64_t{8}},
                    "Stages of the run, at each of which the levels come closer"),
       real_option("shrink", 1.01, 1000, {.images = 2.0}, "By which factor they come closer"),
       level_mean_option(-1.1), level_std_option(2.0),
       real_option("huber-offset", 0, 1000, {.images = 0.0},
                   "c of the pseudo-Huber distance; 0: the plain norm")});
  method.loss = ect_loss;
  method.takes_pairs = true;
  method.has_schedule = true;
  return method;
}

}  // namespace fluxion
