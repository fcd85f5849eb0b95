// The steppers of stepper.h, one function each; options are checked, and their grid is chosen.
#pragma once

#include "models/samplers/stepper.h"

namespace fluxion {

Stepper single_stepper(const SamplerOptions& options);    // meanflow, Euler, midpoint, Heun, RK4
Stepper adaptive_stepper(const SamplerOptions& options);  // dopri5

Stepper edm_stepper(const SamplerOptions& options);
Stepper ddim_stepper(const SamplerOptions& options);
Stepper dpm_solver_stepper(const SamplerOptions& options);
Stepper sde_stepper(const SamplerOptions& options);
Stepper predictor_corrector_stepper(const SamplerOptions& options);
Stepper consistency_stepper(const SamplerOptions& options);
Stepper rectified_stepper(const SamplerOptions& options);

}  // namespace fluxion
