#include "models/samplers/default_sampler.h"

#include <array>

#include "engine/error.h"
#include "models/paths/prediction.h"

namespace fluxion {

namespace {

struct Taught {
  const char* objective;
  Prediction prediction;
};
constexpr std::array<Taught, 5> known = {{{"flow_matching", Prediction::velocity},
                                          {"meanflow", Prediction::average_velocity},
                                          {"meanflow_cfg", Prediction::average_velocity},
                                          {"split_meanflow", Prediction::average_velocity},
                                          {"noise_prediction", Prediction::noise}}};

Prediction prediction_of(const std::string& objective) {
  std::string names;
  for (const Taught& each : known) {
    if (objective == each.objective) return each.prediction;
    names += (names.empty() ? "'" : ", '") + std::string(each.objective) + "'";
  }
  throw FormatError("objective '" + objective + "' is not one of " + names);
}

}  // namespace

void check_objective(const std::string& objective) { prediction_of(objective); }

SamplerOptions default_sampler(const std::string& objective) {
  switch (prediction_of(objective)) {
    case Prediction::velocity:
      return {.kind = SamplerKind::ode_euler, .steps = 50};
    case Prediction::average_velocity:
      return {.kind = SamplerKind::meanflow, .steps = 1};
    default:
      break;
  }
  throw Error(
      "sampling: the model predicts noise, as diffusion models do; the samplers need a velocity "
      "or an average velocity");
}

}  // namespace fluxion
