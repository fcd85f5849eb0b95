#include "models/methods/flow_options.h"

#include "engine/graph/ops.h"
#include "models/samplers/sampler_options.h"

namespace fluxion {

MethodOption time_mean_option() {
  return real_option("time-mean", -100, 100, {.images = -0.4, .points = 0.0},
                     "Mean of the logit-normal times; higher: more noise");
}

MethodOption time_std_option() {
  return real_option("time-std", 1e-6, 100, {.images = 1.0, .points = 2.0},
                     "Standard deviation of the logit-normal times");
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
  return {.time_mean = options.real("time-mean"),
          .time_std = options.real("time-std"),
          .equal_share = options.has("equal-share") ? options.real("equal-share") : 1,
          .label_dropout = options.real("label-dropout")};
}

FlowDraws draw(const LossArguments& arguments, const DrawOptions& options) {
  FlowDraws draws = draw(options, arguments.x, arguments.labels, num_classes(arguments.use.network),
                         fold_in(arguments.key, 0));
  if (arguments.noise) draws.e = arguments.noise;
  return draws;
}

Tensor per_element(const Tensor& per_sample, const Tensor& x) {
  return mean(per_sample) / static_cast<double>(x.elements() / x.size(0));
}

}  // namespace fluxion
