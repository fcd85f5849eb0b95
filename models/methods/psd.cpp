// Progressive self-distillation: a map is two maps, one after the other. The relation is
// SplitMeanFlow's (Guo et al. 2025); what differs are the times, and where an interval is split.
#include "engine/graph/ops.h"
#include "models/methods/self_distillation.h"
#include "models/objectives/flow.h"

namespace fluxion {

Method psd_method() {
  Method method = self_distillation_method();
  method.name = "psd";
  method.summary =
      "The flow map, as two maps one after the other; no derivative; one step or a few draw a "
      "sample";
  method.options = self_distillation_options(
      {choice_option("split", {"uniform", "midpoint"}, {.images = "uniform"},
                     "Split intervals anywhere, or in the middle")});
  method.loss = [](const LossArguments& arguments) {
    const bool anywhere = arguments.use.options.text("split") == "uniform";
    return self_distillation_loss(
        arguments, [&](const Velocity& network, const FlowDraws& draws, const Tensor& key) {
          const Tensor lambda =
              anywhere ? uniform(key, draws.t.shape(), draws.t.dtype()) : full_like(draws.t, 0.5);
          return split_meanflow(network, draws, lambda).per_sample;
        });
  };
  return method;
}

}  // namespace fluxion
