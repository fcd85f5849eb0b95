#include "models/methods/flow_options.h"

#include <cmath>
#include <map>

#include "engine/graph/ops.h"
#include "models/layers/losses.h"
#include "models/objectives/flow.h"
#include "models/samplers/sampler_options.h"

namespace fluxion {

std::vector<MethodOption> with_options(std::vector<MethodOption> own,
                                       const std::vector<std::vector<MethodOption>>& others) {
  for (const std::vector<MethodOption>& each : others)
    own.insert(own.end(), each.begin(), each.end());
  return own;
}

std::vector<MethodOption> time_options() {
  return {choice_option("times", {"logit-normal", "uniform", "mode", "cosmap", "u-shaped"},
                        {.images = "logit-normal"},
                        "Density of the times between data and noise that are trained at"),
          for_choices("times", {"logit-normal"},
                      real_option("time-mean", -100, 100, {.images = -0.4, .points = 0.0},
                                  "Mean of the logit-normal times; higher: more noise")),
          for_choices("times", {"logit-normal"},
                      real_option("time-std", 1e-6, 100, {.images = 1.0, .points = 2.0},
                                  "Standard deviation of the logit-normal times")),
          for_choices("times", {"mode"},
                      real_option("mode-scale", -1, 1.75, {.images = 1.29},
                                  "How much more often times are in the middle, below 0 at the "
                                  "ends")),
          for_choices("times", {"u-shaped"}, time_slope_option()),
          real_option("time-shift", 1e-3, 1000, {.images = 1.0},
                      "k of the times k t / (1 + (k - 1) t), above 1: nearer to noise")};
}

std::vector<MethodOption> single_time_options() {
  return with_options(
      time_options(),
      {{for_choices(
          "times", {"logit-normal", "uniform", "mode", "cosmap"},
          choice_option("time-draws", {"independent", "stratified"}, {.images = "independent"},
                        "Draw each row's time on its own, or one from each of as many "
                        "equal shares of the density as there are rows"))}});
}

MethodOption time_slope_option() {
  return real_option("time-slope", 0.01, 20, {.images = 4.0},
                     "How much more often times are near noise and data than between: a of e^(a "
                     "t) + e^(a (1 - t))");
}

std::vector<MethodOption> regression_options(const std::string& usual) {
  return {choice_option("loss", {"squared", "pseudo-huber", "element-huber", "cauchy", "adaptive"},
                        {.images = usual}, "Distance between prediction and target"),
          for_choices("loss", {"pseudo-huber", "element-huber"}, huber_option()),
          for_choices("loss", {"cauchy"},
                      real_option("cauchy", 1e-6, 1e6, {.images = 0.5},
                                  "c of the Cauchy distance, in roots of the number of elements")),
          for_choices("loss", {"adaptive"}, with_default(adaptive_power_option(), {.images = 1.0})),
          for_choices("loss", {"adaptive"}, adaptive_offset_option())};
}

MethodOption huber_option() {
  return real_option("huber", 0, 10, {.images = 0.00054},
                     "c of the pseudo-Huber distance, in roots of the number of elements");
}

MethodOption equal_share_option() {
  return real_option("equal-share", 0, 1, {.images = 0.75, .points = 0.5},
                     "Share of rows with r = t, which learn the velocity itself");
}

MethodOption label_dropout_option() {
  return for_classes(real_option("label-dropout", 0, 1, {.images = 0.1},
                                 "Share of rows trained without their label"));
}

MethodOption adaptive_power_option() {
  return real_option("power", 0, 4, {.images = 1.0, .points = 0.0},
                     "p of the adaptive weight (error + c)^-p");
}

MethodOption adaptive_offset_option() {
  return real_option("weight-offset", 1e-12, 1e6, {.images = 1e-3},
                     "c of the adaptive weight (error + c)^-p");
}

std::vector<MethodOption> pair_making_options() {
  std::vector<std::string> samplers = {"own"};
  samplers.insert(samplers.end(), sampler_names().begin(), sampler_names().end());
  return {file_option("teacher", "Model file of the trained model"),
          whole_option("pairs", 1, 1'000'000'000,
                       {.images = std::int64_t{50000}, .points = std::int64_t{100000}},
                       "Pairs that are drawn of --teacher before training"),
          choice_option("pair-sampler", samplers, {.images = "own"},
                        "Sampler that draws the pairs of --teacher; own: that of its file"),
          whole_option("pair-steps", 0, 10000, {.images = std::int64_t{0}},
                       "Steps of that sampler; 0: those of the teacher's file, or what is usual "
                       "for the sampler")};
}

DrawOptions draw_options(const MethodOptions& options) {
  static const std::map<std::string, TimeDensity> densities = {
      {"logit-normal", TimeDensity::logit_normal},
      {"uniform", TimeDensity::uniform},
      {"mode", TimeDensity::mode},
      {"cosmap", TimeDensity::cosmap},
      {"u-shaped", TimeDensity::u_shaped},
  };
  return {.times = {.density = densities.at(options.text("times")),
                    .mean = options.real("time-mean"),
                    .std = options.real("time-std"),
                    .mode_scale = options.real("mode-scale"),
                    .slope = options.real("time-slope"),
                    .shift = options.real("time-shift"),
                    .stratified =
                        options.has("time-draws") && options.text("time-draws") == "stratified"},
          .equal_share = options.has("equal-share") ? options.real("equal-share") : 1,
          .label_dropout = options.real("label-dropout")};
}

FlowDraws draw(const LossArguments& arguments, const DrawOptions& options) {
  FlowDraws draws = draw(options, arguments.x, arguments.labels, num_classes(arguments.use.network),
                         fold_in(arguments.key, 0));
  if (arguments.noise) draws.e = arguments.noise;
  return draws;
}

Tensor distance(const MethodOptions& options, const Tensor& prediction, const Tensor& target) {
  const std::string& kind = options.text("loss");
  const std::int64_t batch = target.size(0), elements = target.elements() / batch;
  const auto n = static_cast<double>(elements);
  if (kind == "pseudo-huber")
    return pseudo_huber(prediction, target, options.real("huber") * std::sqrt(n));
  if (kind == "element-huber") {
    const auto flat = [](const Tensor& x) { return reshape(x, {-1}); };
    const Tensor each = pseudo_huber(flat(prediction), flat(target), options.real("huber"));
    return sum(reshape(each, {batch, elements}), {1});
  }
  const Tensor squares = squared_norm(prediction - target);
  if (kind == "cauchy") {
    const double c = options.real("cauchy");
    return log1p(squares / (2 * c * c * n));
  }
  if (kind == "adaptive")
    return adaptive_weight(squares, options.real("weight-offset"), options.real("power")) * squares;
  return squares;
}

LossValue flow_loss(const LossArguments& arguments, const FlowDraws& draws) {
  const MethodOptions& options = arguments.use.options;
  const FlowMatchingResult result = flow_matching(arguments.velocity, draws);
  const std::string& kind = options.text("loss");
  if (kind == "squared") return {result.loss, result.loss};
  const Tensor of_sample = distance(options, result.u, draws.e - draws.x);
  const bool grows = kind != "cauchy" && kind != "adaptive";
  return {grows ? per_element(of_sample, draws.x) : mean(of_sample), result.loss};
}

Tensor per_element(const Tensor& per_sample, const Tensor& x) {
  return mean(per_sample) / static_cast<double>(x.elements() / x.size(0));
}

}  // namespace fluxion
