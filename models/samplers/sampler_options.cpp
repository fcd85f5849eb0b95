#include "models/samplers/sampler_options.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/error.h"
#include "engine/number_text.h"
#include "engine/single_precision.h"
#include "models/names.h"

namespace fluxion {
namespace {

constexpr EnumNames<SamplerKind, 13> kind_names = {
    {{SamplerKind::meanflow, "meanflow"},
     {SamplerKind::ode_euler, "euler"},
     {SamplerKind::ode_heun, "heun"},
     {SamplerKind::ode_rk4, "rk4"},
     {SamplerKind::ode_midpoint, "midpoint"},
     {SamplerKind::ode_dopri5, "dopri5"},
     {SamplerKind::edm, "edm"},
     {SamplerKind::ddim, "ddim"},
     {SamplerKind::dpm_solver, "dpm-solver++"},
     {SamplerKind::sde, "sde"},
     {SamplerKind::predictor_corrector, "predictor-corrector"},
     {SamplerKind::consistency, "consistency"},
     {SamplerKind::rectified, "rf++"}}};

constexpr EnumNames<GridKind, 5> grid_names = {{{GridKind::automatic, "auto"},
                                                {GridKind::uniform, "uniform"},
                                                {GridKind::karras, "karras"},
                                                {GridKind::log_snr, "log-snr"},
                                                {GridKind::best, "best"}}};
constexpr std::int64_t most_best_steps = 200;

[[noreturn]] void refuse(const std::string& what, double got) {
  throw Error("sampler: " + what + ", got " + number_text(got));
}

}  // namespace

std::string to_string(SamplerKind kind) { return name_of(kind_names, kind); }

SamplerKind sampler_kind_from(const std::string& name) {
  return value_named(kind_names, name, "sampler");
}

const std::vector<std::string>& sampler_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const auto& [value, name] : kind_names) result.push_back(name);
    return result;
  }();
  return names;
}

std::int64_t usual_steps(SamplerKind kind) {
  switch (kind) {
    case SamplerKind::meanflow:
      return 1;
    case SamplerKind::ode_dopri5:
      return 1000;
    case SamplerKind::edm:
      return 18;
    case SamplerKind::dpm_solver:
      return 20;
    case SamplerKind::sde:
    case SamplerKind::predictor_corrector:
      return 250;
    case SamplerKind::consistency:
    case SamplerKind::rectified:
      return 2;
    default:
      return 50;
  }
}

std::string to_string(GridKind kind) { return name_of(grid_names, kind); }

GridKind grid_kind_from(const std::string& name) { return value_named(grid_names, name, "grid"); }

GridKind grid_of(const SamplerOptions& options) {
  if (options.grid != GridKind::automatic) return options.grid;
  return options.kind == SamplerKind::edm || options.path.kind == PathKind::edm ? GridKind::karras
         : options.kind == SamplerKind::dpm_solver                              ? GridKind::log_snr
                                                                                : GridKind::uniform;
}

void check(const SamplerOptions& options) {
  if (options.steps < 1)
    throw Error("sampler: wants at least 1 step, got " + std::to_string(options.steps));
  if (!fits_single(options.guidance))
    refuse("guidance must be 0 or a number that single precision holds", options.guidance);
  if (!(options.guidance_low <= options.guidance_high))
    throw Error("sampler: guidance holds between two times, low to high, got " +
                number_text(options.guidance_low) + " and " + number_text(options.guidance_high));
  check(options.path);
  const auto at_least = [](const char* name, double value, double least) {
    if (!(value >= least) || !fits_single(value))
      refuse(std::string(name) + " must be at least " + number_text(least), value);
  };
  const auto above_0 = [](const char* name, double value) {
    if (!(value > 0) || !fits_single(value)) refuse(std::string(name) + " must be above 0", value);
  };
  if (!(options.begin >= 0 && options.begin < 1))
    refuse("begin must be at least 0 and below 1", options.begin);
  if (options.head_start && !(options.begin > 0))
    throw Error("sampler: a head start is a share of the way, above 0");
  if (options.head_start && !options.independent_noise)
    throw Error(
        "sampler: a head start is the flow of data under independent noise, and this model was "
        "trained on another; leave it out");
  if (!options.on_path && options.begin > 0)
    throw Error(
        "sampler: this model is a flow of its own, whose states are not data under noise: nothing "
        "can begin in between");
  if (!options.on_path && options.kind == SamplerKind::rectified && options.steps > 1)
    throw Error(
        "sampler: the steps of rf++ end in data under noise, which a flow of its own does not "
        "pass; take euler, heun or another");
  if (options.head_start && !options.source.empty())
    throw Error("sampler: a head start begins in noise, and this model in points of " +
                options.source);
  above_0("shift", options.shift);
  if (options.grid == GridKind::best) {
    if (options.kind != SamplerKind::ode_euler)
      throw Error("sampler: the best grid is that of Euler's steps; take the sampler euler, not " +
                  to_string(options.kind));
    if (options.begin > 0 || options.shift != 1)
      throw Error(
          "sampler: the best grid goes all the way from noise to data; leave out the shift, and "
          "the "
          "head start or image that it would begin with");
    if (options.steps > most_best_steps)
      throw Error("sampler: the best grid is looked for up to " + std::to_string(most_best_steps) +
                  " steps, got " + std::to_string(options.steps));
    const std::vector<double>& times = options.times;
    if (!times.empty() && (std::ssize(times) != options.steps + 1 ||
                           std::ranges::adjacent_find(times, std::less_equal()) != times.end() ||
                           !std::ranges::all_of(times, [](double t) { return std::isfinite(t); })))
      throw Error("sampler: a grid of " + std::to_string(options.steps) +
                  " steps has one time more, each below the one before");
  }
  above_0("rho", options.rho);
  above_0("sigma_min", options.sigma_min);
  if (!(options.sigma_min < options.sigma_max) || !fits_single(options.sigma_max))
    throw Error("sampler: wants sigma_min < sigma_max, got " + number_text(options.sigma_min) +
                " and " + number_text(options.sigma_max));
  above_0("relative_tolerance", options.relative_tolerance);
  above_0("absolute_tolerance", options.absolute_tolerance);
  if (options.shown_steps < 0 ||
      (options.shown_steps > 0 && options.kind != SamplerKind::ode_dopri5))
    throw Error("sampler: shown_steps are dopri5's, 0 or more, got " +
                std::to_string(options.shown_steps));
  above_0("signal_to_noise", options.signal_to_noise);
  at_least("churn", options.churn, 0);
  at_least("churn_noise", options.churn_noise, 0);
  if (options.corrections < 0 || options.corrections > 1000)
    throw Error("sampler: corrections must be 0 to 1000, got " +
                std::to_string(options.corrections));
  if (options.eta) {
    at_least("eta", *options.eta, 0);
    if (options.kind == SamplerKind::ddim && *options.eta > 1)
      refuse("eta of ddim must be in [0, 1]", *options.eta);
  }

  const double eta = options.eta.value_or(options.kind == SamplerKind::sde ? 1 : 0);
  const bool adds_noise =
      options.kind == SamplerKind::predictor_corrector ||
      ((options.kind == SamplerKind::sde || options.kind == SamplerKind::ddim) && eta > 0) ||
      (options.kind == SamplerKind::edm && options.churn > 0) ||
      (options.kind == SamplerKind::consistency && options.steps > 1);
  if (adds_noise && !options.independent_noise)
    throw Error(
        "sampler: " + to_string(options.kind) +
        (options.kind == SamplerKind::consistency ? " of several steps" : "") +
        " adds noise on its way, and this model was trained without noise that is independent of "
        "the data, of which it has no score; take a sampler without noise, such as heun");
  const bool jumps = options.prediction == Prediction::average_velocity ||
                     options.prediction == Prediction::end_point;
  const std::string serves = "; this network predicts " + to_string(options.prediction);
  if (options.kind == SamplerKind::consistency && !jumps)
    throw Error(
        "sampler: consistency jumps to the end of a trajectory, which average velocities and end "
        "points tell" +
        serves);
  // A velocity of a network without a second time is its own average.
  if (options.kind == SamplerKind::meanflow && options.prediction != Prediction::average_velocity &&
      options.prediction != Prediction::velocity)
    throw Error("sampler: meanflow wants an average velocity" + serves);
  if (options.kind != SamplerKind::consistency && options.prediction == Prediction::end_point)
    throw Error("sampler: " + to_string(options.kind) +
                " follows velocities, noise or data; this network predicts end points, which the "
                "sampler consistency takes");
}

}  // namespace fluxion
