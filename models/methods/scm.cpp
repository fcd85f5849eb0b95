// sCM: consistency training in continuous time, on TrigFlow: f(x_t, t) = cos(t) x_t - sin(t) s
// F(x_t / s, t) does not change along a trajectory; the change comes from a JVP, its second term
// with a share that rises from 0 to 1, and w(t) is a learned log-weight. The paper begins with a
// diffusion model. Here the run trains one in its first part and then distils it (the paper's sCD),
// whose tangents are less noisy than those of the data.
#include <algorithm>
#include <cmath>

#include "engine/graph/ops.h"
#include "models/methods/learned_weight.h"
#include "models/methods/noise_levels.h"
#include "models/objectives/consistency.h"

namespace fluxion {
namespace {

Path trigflow_path(const MethodOptions& options) {
  return Path::trigflow(options.real("sigma-data"));
}

bool distils(const MethodOptions& options) { return options.real("distil-from") > 0; }

double steps_of(const MethodUse& use, const char* share) {
  return use.options.real(share) * static_cast<double>(use.total_steps);
}

// The first update after the part that trains a diffusion model. The second begins as a run of its
// own: from the teacher, as the paper's do, and with fresh moments, which are of another loss.
std::int64_t distils_from(const MethodUse& use) {
  return static_cast<std::int64_t>(std::ceil(steps_of(use, "distil-from")));
}

Tensor distils_at(const MethodUse& use, const Tensor& step) { return ge(step, distils_from(use)); }

// The share of the tangent's second term, which rises after that part.
Tensor warm_up(const LossArguments& arguments, DType dtype) {
  const Tensor since = arguments.step.to(dtype) - static_cast<double>(distils_from(arguments.use));
  return clip(since / std::max(1.0, steps_of(arguments.use, "tangent-warm-up")), 0.0, 1.0);
}

constexpr double restart_warm_up_steps = 100;

// At the rate of the first part, small batches lose what they learned sooner (docs/training.md).
double scm_rate(const MethodUse& use, std::int64_t step) {
  const std::int64_t since = step - distils_from(use);
  if (!distils(use.options) || since < 0) return 1.0;
  return use.options.real("distil-rate") *
         std::min(1.0, static_cast<double>(since + 1) / restart_warm_up_steps);
}

// The teacher is an average of the network in the first part, and stays as it then is.
MethodState scm_teacher(const UpdateArguments& update) {
  if (!distils(update.use.options)) return {};
  // At first as long as the run so far, so that nothing of the fresh weights stays.
  const Tensor share = maximum(9.0 / (update.step.to(DType::f32) + 10.0), 0.01);
  const Tensor moves = where(distils_at(update.use, update.step), 0.0, share);
  return {{"teacher", update.average(update.state.at("teacher"), moves)}};
}

LossValue scm_loss(const LossArguments& arguments) {
  const MethodOptions& options = arguments.use.options;
  const Tensor& x = arguments.x;
  const double data = options.real("sigma-data");
  const Tensor n = normal(fold_in(arguments.key, 1), {x.size(0)}, x.dtype());
  const Tensor level = exp(options.real("level-mean") + options.real("level-std") * n);
  const Tensor t = atan2(level, data);
  TrigFlowOptions how{.sigma_data = data, .warmup_now = warm_up(arguments, x.dtype())};
  if (distils(options)) {
    how.teacher = arguments.bind_trained(arguments.state.at("teacher"));
    how.distils = distils_at(arguments.use, arguments.step);
  }
  const Tensor w = weight_of(arguments.learned, expand_dims(t, 1));
  Labels labels;
  if (num_classes(arguments.use.network) > 0) labels.label = drawn_labels(arguments);
  const TrigFlowResult result =
      consistency_trigflow(arguments.velocity, x, drawn_noise(arguments), t, w, labels, how);
  return {result.loss, mean(result.change)};
}

}  // namespace

Method scm_method() {
  return {
      .name = "scm",
      .summary =
          "The end of the trajectory through a point, in continuous time; one step or two "
          "draw a sample",
      .paper =
          "Lu and Song 2024, Simplifying, Stabilizing and Scaling Continuous-Time Consistency "
          "Models, arXiv 2410.11081",
      .options = {sigma_data_option(), level_mean_option(-1.0), level_std_option(1.4),
                  real_option("tangent-warm-up", 0, 1, {.images = 0.2, .points = 0.1},
                              "Share of the run over which the tangent's second term comes in"),
                  newer_option(
                      real_option("distil-from", 0, 1, {.images = 0.5, .points = 0.0},
                                  "Share of the run that trains a diffusion model; the run then "
                                  "begins anew from its average, and distils it; 0: consistency "
                                  "training, without one"),
                      0.0),
                  newer_option(
                      real_option("distil-rate", 1e-4, 1, {0.2},
                                  "What the learning rate is multiplied by from then on; it rises "
                                  "to that over 100 updates"),
                      1.0),
                  label_dropout_option()},
      .prediction = Prediction::end_point,
      .wrapping = Wrapping::trigflow,
      .path = trigflow_path,
      .sampling = {.sampler = "consistency", .steps = 2},
      .refusal = [](const MethodUse& use) -> std::string {
        const double from = use.options.real("distil-from");
        if (from == 0 || (from < 1 && from + use.options.real("tangent-warm-up") <= 1)) return "";
        return "distil-from and tangent-warm-up leave nothing of the run: its second term would "
               "never come in whole";
      },
      .loss = scm_loss,
      .takes_pairs = true,
      .has_schedule = true,
      .learned_shapes = [](const MethodUse&) { return weight_shapes(1); },
      .learned = [](const MethodUse&, const Tensor& key) { return fresh_weight(1, key); },
      .copies = {"teacher"},
      .keeps_copies = distils,
      .rate = scm_rate,
      .restart = distils_from,
      .after_update = scm_teacher,
  };
}

}  // namespace fluxion
