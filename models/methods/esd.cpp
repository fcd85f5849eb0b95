// Eulerian self-distillation: the map ends at the same point from wherever on a trajectory it
// begins.
#include "models/methods/self_distillation.h"
#include "models/objectives/flow_map.h"

namespace fluxion {

Method esd_method() {
  Method method = self_distillation_method();
  method.name = "esd";
  method.summary =
      "The flow map, by u = v - (t - r) du/dt along its own velocity v; one step or a few draw a "
      "sample";
  method.options = self_distillation_options(
      {choice_option("gradient", {"stopped", "time", "convex", "through"}, {.images = "convex"},
                     "What of v - (t - r) du/dt gradients go through: nothing, the part of du/dt "
                     "along t, du/dt with its direction held constant, or all of it; the first "
                     "two diverge at high learning rates")});
  method.loss = [](const LossArguments& arguments) {
    const std::string& name = arguments.use.options.text("gradient");
    const EulerianGradient gradient = name == "stopped"  ? EulerianGradient::stopped
                                      : name == "time"   ? EulerianGradient::time
                                      : name == "convex" ? EulerianGradient::convex
                                                         : EulerianGradient::through;
    return self_distillation_loss(
        arguments, [&](const Velocity& network, const FlowDraws& draws, const Tensor&) {
          return eulerian_self_distillation(network, draws, gradient).per_sample;
        });
  };
  return method;
}

}  // namespace fluxion
