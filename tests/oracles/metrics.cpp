// Section 9 of the schema: metrics.
#include "models/evaluation/frechet.h"
#include "models/evaluation/losses.h"
#include "tests/oracles/subject.h"

namespace fluxion::oracles {

Subject metric_subject(const Case& oracle) {
  const auto& attributes = oracle.attributes;
  if (oracle.name == "sliced_wasserstein2")
    return [](const Inputs& in, const Parameters&, const Placement&) {
      const Tensor squared = sliced_wasserstein2_loss(in.at(0), in.at(1), in.at(2));
      return Outputs{squared, sqrt(squared)};
    };
  if (oracle.name == "energy_distance")
    return [unbiased = attributes.at("unbiased").get<bool>()](const Inputs& in, const Parameters&,
                                                              const Placement&) {
      return Outputs{energy_loss(in.at(0), in.at(1), unbiased)};
    };
  if (oracle.name == "mmd2_rbf")
    return [bandwidth = attributes.at("bandwidth").get<double>()](
               const Inputs& in, const Parameters&, const Placement&) {
      return Outputs{mmd2_rbf_loss(in.at(0), in.at(1), bandwidth)};
    };
  // Computed on the host from the file's own numbers: it is no graph and has no derivatives.
  if (oracle.name == "frechet_gaussian") {
    const double distance =
        frechet_distance({oracle.inputs.at(0).values, oracle.inputs.at(1).values},
                         {oracle.inputs.at(2).values, oracle.inputs.at(3).values});
    return [distance](const Inputs&, const Parameters&, const Placement& placement) {
      return Outputs{full({}, distance, placement.floating, placement.device)};
    };
  }
  throw NotBuilt("metric " + oracle.name);
}

}  // namespace fluxion::oracles
