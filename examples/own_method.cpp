// A training method of a program's own, and the whole trainer with it: options, an average of the
// network as teacher, checkpoints, resume, pictures, model files - and, with arguments, the command
// line:
//   example_own_method
//   example_own_method train --method trajectory --data 8gaussians --steps 500 --out out
//   example_own_method train --resume out --steps 1000
#include <filesystem>
#include <iostream>

#include "backends/cpu/cpu.h"
#include "cli/program.h"
#include "engine/graph/ops.h"
#include "models/data/points.h"
#include "models/layers/layers.h"
#include "models/layers/losses.h"
#include "models/methods/flow_options.h"
#include "models/training/checkpoint.h"
#include "models/training/run.h"

using namespace fluxion;

// Consistency of f(z, t) = z - t u(z, t, 0), the end of the trajectory through z: it is the same at
// two times that are `gap` apart, the earlier one's as the slow teacher sees it.
Method trajectory() {
  return {
      .name = "trajectory",
      .summary = "The end of the trajectory through a point; one step draws a sample",
      .paper = "An example, 2026, after Song et al. 2023, Consistency Models, arXiv 2303.01469",
      .options = {real_option("gap", 1e-3, 1, {.images = 0.1}, "Between the two times"),
                  real_option("teacher-share", 0, 1, {.images = 0.05},
                              "By which the teacher follows in each step")},
      .prediction = Prediction::average_velocity,
      .sampling = {.sampler = "meanflow", .steps = 1},
      .loss =
          [](const LossArguments& arguments) {
            const Tensor& x = arguments.x;
            const Tensor e = normal(fold_in(arguments.key, 0), x.shape(), x.dtype());
            const Tensor late = uniform(fold_in(arguments.key, 1), {x.size(0)}, x.dtype());
            const Tensor early = maximum(late - arguments.use.options.real("gap"), 0.0);
            const auto end = [&](const Velocity& network, const Tensor& t) {
              const Tensor z = (1.0 - per_sample(t, x.rank())) * x + per_sample(t, x.rank()) * e;
              return z - per_sample(t, x.rank()) * network(z, {.t = t, .r = zeros_like(t)}, {});
            };
            const Velocity teacher = arguments.bind(arguments.state.at("teacher"));
            const Tensor difference =
                end(arguments.velocity, late) - stop_gradient(end(teacher, early));
            const Tensor loss = per_element(squared_norm(difference), x);
            return LossValue{loss, loss};
          },
      .copies = {"teacher"},
      .after_update = [](const UpdateArguments& update) -> MethodState {
        const double share = update.use.options.real("teacher-share");
        return {{"teacher", update.average(update.state.at("teacher"), share)}};
      },
  };
}

int main(int argc, char** argv) {
  const MethodTable methods = with_method(built_in_methods(), trajectory());
  if (argc > 1) return cli::run(argc, argv, {std::cout, std::cerr}, methods);

  const TrainingConfig config{
      .network = MlpConfig{.hidden = {64, 64}},
      .method = configure("trajectory", {{"gap", 0.2}}, SampleKind::points, methods),
      .batch = 256};
  const auto folder = std::filesystem::temp_directory_path() / "fluxion-own-method";
  Trainer trainer(config, eight_gaussians(), cpu());
  const RunSummary first = run_training(trainer, {.steps = 150}, {.folder = folder});
  Trainer resumed = resume_trainer(first.checkpoint, eight_gaussians(), cpu(), {}, methods);
  const RunSummary second = run_training(resumed, {.steps = 300}, {.folder = folder});
  std::cout << "loss " << first.last.loss << " after 150 steps, " << second.last.loss
            << " after 300; samples are in " << second.samples.string() << "\n";
  return second.last.loss < 1 ? 0 : 1;
}
