// The rules of regions: how each transform passes through checkpoint, custom_jvp, custom_linear and custom_vjp.
#include "autograd/rules.h"
#include "engine/region.h"

namespace fluxion {

std::vector<Tensor> region_jvp(const JvpCall& call) { throw Error("jvp: " + to_string(*call.get<RegionAttributes>().region) + " has no rule yet"); }

std::vector<Tensor> region_transpose(const TransposeCall& call) {
  throw Error("linear_transpose: " + to_string(*call.get<RegionAttributes>().region) + " has no rule yet");
}

}  // namespace fluxion
