// Lagrangian self-distillation: where the map ends, it moves with the velocity there.
#include "models/methods/self_distillation.h"
#include "models/objectives/flow_map.h"

namespace fluxion {

Method lsd_method() {
  Method method = self_distillation_method();
  method.name = "lsd";
  method.summary = "The flow map, by dX/dr = u(X, r, r); one step or a few draw a sample";
  method.options = self_distillation_options();
  method.loss = [](const LossArguments& arguments) {
    return self_distillation_loss(
        arguments, [](const Velocity& network, const FlowDraws& draws, const Tensor&) {
          return lagrangian_self_distillation(network, draws).per_sample;
        });
  };
  return method;
}

}  // namespace fluxion
