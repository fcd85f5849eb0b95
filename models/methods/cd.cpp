// Consistency distillation: neighbouring noise levels on a trajectory of a trained EDM model; from
// the higher to the lower by one of Heun's steps, there as a slow average of the network sees it.
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "models/methods/consistency_pair.h"
#include "models/samplers/sampler.h"

namespace fluxion {
namespace {

LossValue cd_loss(const LossArguments& arguments) {
  const MethodOptions& options = arguments.use.options;
  const Path path = noise_level_path(options);
  const Tensor &x = arguments.x, e = drawn_noise(arguments), labels = drawn_labels(arguments);
  const Tensor n =
      full_like(arguments.step.to(x.dtype()), static_cast<double>(options.whole("levels")));
  const Tensor u = uniform(fold_in(arguments.key, 1), {x.size(0)}, x.dtype());
  const Tensor i = minimum(floor(u * (n - 1.0)), n - 2.0);
  const Tensor low = karras_level(path, i, n), high = karras_level(path, i + 1.0, n);
  const Predictor teacher{
      .network =
          wrapped(Wrapping::edm, arguments.bind_trained(arguments.state.at("teacher")), path),
      .path = path,
      .prediction = Prediction::F};
  const Tensor above = noised(path, x, e, high);
  const Velocity slope = [&](const Tensor& z, const Times& times, const Tensor& labels) {
    return teacher(Prediction::velocity, z, times.t, labels);
  };
  const Tensor below =
      stop_gradient(sampler_step(SamplerKind::ode_heun, slope, above, high, low, labels));
  const Velocity student = end_of_trajectory(arguments.velocity, path),
                 slow = end_of_trajectory(arguments.bind(arguments.state.at("slow")), path);
  const Tensor difference = student(above, {.t = high, .r = high}, labels) -
                            stop_gradient(slow(below, {.t = low, .r = low}, labels));
  const Tensor loss = per_element(squared_norm(difference), x);
  return {loss, loss};
}

}  // namespace

Method cd_method() {
  Method method = consistency_method();
  method.name = "cd";
  method.summary = "The end of the trajectory through a point, from a trained EDM model";
  method.paper = "Song et al. 2023, Consistency Models, arXiv 2303.01469";
  method.options = noise_level_options(
      {file_option("teacher", "Model file of the trained model"),
       whole_option("levels", 2, 10000, {.images = std::int64_t{18}}, "Noise levels of the grid"),
       real_option("slow-decay", 0, 0.9999, {.images = 0.95}, "Decay of the slow average")});
  method.loss = cd_loss;
  method.copies = {"slow"};
  method.teacher_option = "teacher";
  method.teacher_refusal = [](const ModelInfo& info, const MethodOptions& options) -> std::string {
    if (info.wrapping != Wrapping::edm) return "predicts no F of EDM; --method edm trains one";
    if (info.path.sigma_data != options.real("sigma-data"))
      return "was trained with --sigma-data " + number_text(info.path.sigma_data) +
             ", which scales what it is asked and what it answers; give the same";
    return "";
  };
  method.after_update = [](const UpdateArguments& update) -> MethodState {
    return {{"slow",
             update.average(update.state.at("slow"), 1 - update.use.options.real("slow-decay"))}};
  };
  return method;
}

}  // namespace fluxion
