#include "models/samplers/stepper.h"

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "models/samplers/steppers.h"

namespace fluxion {

std::pair<Tensor, Tensor> LabelledPredictor::both(Prediction first, Prediction second,
                                                  const Tensor& z, const Tensor& t) const {
  const Prediction own = predictor.prediction;
  const Tensor y = predictor(own, z, t, labels);
  const auto as = [&](Prediction wanted) {
    return convert_prediction(y, own, wanted, predictor.path, z, t);
  };
  return {as(first), as(second)};
}

Stepper make_stepper(const SamplerOptions& given) {
  check(given);
  SamplerOptions options = given;
  options.grid = grid_of(options);
  switch (options.kind) {
    case SamplerKind::meanflow:
    case SamplerKind::ode_euler:
    case SamplerKind::ode_heun:
    case SamplerKind::ode_rk4:
    case SamplerKind::ode_midpoint:
      return single_stepper(options);
    case SamplerKind::ode_dopri5:
      return adaptive_stepper(options);
    case SamplerKind::edm:
      return edm_stepper(options);
    case SamplerKind::ddim:
      return ddim_stepper(options);
    case SamplerKind::dpm_solver:
      return dpm_solver_stepper(options);
    case SamplerKind::sde:
      return sde_stepper(options);
    case SamplerKind::predictor_corrector:
      return predictor_corrector_stepper(options);
    case SamplerKind::consistency:
      return consistency_stepper(options);
    case SamplerKind::rectified:
      return rectified_stepper(options);
  }
  throw Error("sampler: unknown kind");
}

}  // namespace fluxion
